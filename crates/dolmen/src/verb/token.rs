//! `dolmen token [MACHINE]`: prints what lets one more machine join, once and soon.

use std::process::ExitCode;

use link::api::{Answer, ApiError, Ask};
use plan::Place;

use super::{Site, wait};
use crate::failure::Failure;
use crate::machines::agreed::{Agreement, MACHINES, Machines};
use crate::out;
use crate::site::Home;

#[derive(Debug, clap::Args)]
pub struct Token {
    /// The machine of the site file that is to join; may be left out while only one has not
    machine: Option<String>,
    /// How many minutes the token is good for
    #[arg(long, default_value_t = 15)]
    minutes: u32,
}

impl Token {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        if site.plan.place != Place::Machines || site.plan.machines.len() < 2 {
            return Err(Failure::mistake(format!(
                "{} has no other machine that could join it\n\
                 hint: `dolmen agent MACHINE` begins a site whose [machines] names several",
                site.plan.site
            )));
        }
        wait(async {
            let machine = match &self.machine {
                Some(machine) => machine.clone(),
                None => only_one(&site).await?,
            };
            let me = site.here().ok_or_else(|| site.is_not_up())?;
            let mut conversation = site.agent(me).await?;
            let ask = Ask::Token { machine: machine.clone(), minutes: self.minutes };
            conversation.ask(&ask).await.map_err(ApiError::from)?;
            let Answer::Token(token) = conversation.answer().await? else {
                return Err(Failure::failed(format!("the agent of {} gave no token", me.name)));
            };
            out::line(&token);
            out::error_line(&format!(
                "on {machine}, within {} minutes: dolmen join TOKEN\n\
                 whoever has the token can become {machine}, once",
                self.minutes
            ));
            Ok(ExitCode::SUCCESS)
        })
    }
}

/// The only machine that has not joined yet.
async fn only_one(site: &Site) -> Result<String, Failure> {
    let agreement = Agreement::new(site.identity.clone(), &site.plan, "");
    let (_, joined) = agreement.read::<Machines>(MACHINES).await.map_err(Failure::failed)?;
    let joined = joined.unwrap_or_default();
    let all = site.plan.machines.iter().map(|machine| machine.name.as_str());
    let missing: Vec<&str> = all.filter(|name| !joined.machines.contains_key(*name)).collect();
    match missing.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(Failure::mistake("all machines of the site have joined")),
        several => Err(Failure::mistake(format!(
            "which one? {} have not joined yet\nhint: `dolmen token {}`",
            several.join(", "),
            several[0]
        ))),
    }
}
