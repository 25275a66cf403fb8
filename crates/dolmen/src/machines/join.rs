//! `dolmen join TOKEN`: a machine that has nothing becomes one of a site.
//!
//! The site is known by the fingerprint in the token before a word is said to it. The machine's keys are made
//! here and stay here. What the plan needs is fetched as the machine that it has become; only when all of it is
//! on disk does the machine belong to the site, so that a join that was interrupted is simply tried again.

use std::time::Duration;

use link::api::{self, Answer, ApiError, Ask, Due, Identity, Join, Joined, SealingKey, Token, call_as_guest};
use tokio::time::{Instant, sleep, timeout};

use super::agreed::{Agreed, PLAN};
use super::desk::now_s;
use super::follow::Follower;
use crate::failure::Failure;
use crate::site::State;

/// How long the site may take to agree that the machine is one of its own.
const ANSWER: Duration = Duration::from_secs(20);

/// How long what the plan needs may take to come, but for large files.
const FETCH: Duration = Duration::from_secs(30);

const RETRY: Duration = Duration::from_millis(200);

/// Joins, and says which machine this is now.
pub async fn join(token: &Token) -> Result<State, Failure> {
    let mut state = State::for_joining(&token.site)?;
    let ended = has_ended(&state, &token.machine);
    if let Some(machine) =
        state.about().machine.as_ref().filter(|machine| !ended || **machine != token.machine)
    {
        return Err(Failure::mistake(format!(
            "this machine is {machine} of {} already\nhint: `dolmen agent` runs its part",
            token.site
        )));
    }
    let folder = state.machine(&token.machine);
    folder.make()?;
    let sealing = SealingKey::open(folder.path()).map_err(Failure::failed)?;
    let ask = Join {
        request: api::request(folder.path(), &token.machine)?,
        sealing_key: sealing.public().to_owned(),
        clock_s: now_s(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let joined = ask_for_it(token, ask).await?;
    api::put(folder.path(), &joined.certificate, &joined.authority)?;
    state.note_revoked(&joined.revoked)?;
    if ended {
        // Its agent, which may be running, finds the certificate and follows what was agreed meanwhile.
        return Ok(state);
    }
    state.become_machine(&joined.machine, false);
    state.make_accounts()?;
    fetch(&state, &joined).await?;
    state.write_about()?;
    Ok(state)
}

/// Whether this computer is this machine already, and was away for so long that nobody listens to it any more.
fn has_ended(state: &State, machine: &str) -> bool {
    let validity = Identity::open(state.machine(machine).path()).and_then(|identity| identity.validity());
    let is_it = state.about().machine.as_deref() == Some(machine);
    is_it && validity.is_ok_and(|validity| matches!(validity.due(now_s()), Due::Ended(_)))
}

/// Shows the token and gets a certificate, or the sentence that says why not.
async fn ask_for_it(token: &Token, ask: Join) -> Result<Joined, Failure> {
    let refused = |error: ApiError| Failure::failed(sentence(token, &error));
    let asked = async {
        let mut conversation = call_as_guest(token).await?;
        conversation.ask(&Ask::Join(Box::new(ask))).await?;
        conversation.answer().await
    };
    let slow = |_| Failure::failed(format!("{} does not answer in time", token.issuer));
    match timeout(ANSWER, asked).await.map_err(slow)?.map_err(refused)? {
        Answer::Joined(joined) if joined.machine == token.machine && joined.plan.site == token.site => {
            Ok(*joined)
        }
        other => Err(Failure::failed(format!("{} answered with something else: {other:?}", token.issuer))),
    }
}

/// What went wrong, for whoever holds the token.
fn sentence(token: &Token, error: &ApiError) -> String {
    let Token { issuer, machine, site, address, .. } = token;
    let another = format!("hint: `dolmen token {machine}` on {issuer} prints another one");
    match error {
        ApiError::Refused(because) => format!("{issuer} does not take this machine in: {because}\n{another}"),
        // The key of the token was not accepted in the handshake.
        ApiError::Frame(_) => format!("{issuer} does not know this token\n{another}"),
        ApiError::Connect { error, .. } if error.kind() == std::io::ErrorKind::InvalidData => {
            format!(
                "what answers at {address} is not {issuer} of {site}: {error}\nhint: nothing was told to it"
            )
        }
        ApiError::Connect { error, .. } => format!(
            "{issuer} cannot be reached at {address}: {error}\n\
             hint: its agent must run, and port {} be open between the machines",
            address.port()
        ),
        other => format!("{issuer} at {address}: {other}"),
    }
}

/// Gets the newest plan from control, and all that it needs.
async fn fetch(state: &State, joined: &Joined) -> Result<(), Failure> {
    let identity = Identity::open(state.machine(&joined.machine).path())?;
    identity.revoke(state.revoked()?);
    let follower = Follower::new(state, &joined.machine, &joined.plan, identity).map_err(Failure::failed)?;
    let until = Instant::now() + FETCH;
    loop {
        let because = match follower.agreement.read::<Agreed>(PLAN).await {
            Ok((_, Some(agreed))) => match follower.take_on(&agreed).await {
                Ok(()) => return Ok(()),
                Err(because) => because,
            },
            Ok((_, None)) => "the machines have not agreed on a plan yet".to_owned(),
            Err(error) => error.to_string(),
        };
        if Instant::now() > until {
            return Err(Failure::failed(format!(
                "{} was taken in, but cannot begin: {because}\n\
                 hint: mend that, and join once more with another token",
                joined.machine
            )));
        }
        sleep(RETRY).await;
    }
}
