//! `dolmen database history`: the promotions that the record remembers, oldest first.

use std::process::ExitCode;

use database::group::Promotion;

use crate::failure::Failure;
use crate::out;
use crate::site::Home;
use crate::verb::record::GroupRecord;
use crate::verb::{Site, wait};

#[derive(Debug, clap::Args)]
pub struct History {
    /// For scripts: keys may be added, not changed
    #[arg(long)]
    json: bool,
}

impl History {
    pub fn run(self, home: &Home) -> Result<ExitCode, Failure> {
        let site = Site::open(home)?;
        let (_, group) = wait(async { GroupRecord::of(&site).await?.read().await })?;
        if self.json {
            out::line(&serde_json::to_string_pretty(&group.history).map_err(Failure::failed)?);
            return Ok(ExitCode::SUCCESS);
        }
        out::line(&format!(
            "{:>5}  {:<12} {:>8}  {:<14} {:<19}  because",
            "epoch", "primary", "timeline", "from", "when (UTC)"
        ));
        for promotion in &group.history {
            out::line(&row(promotion));
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn row(promotion: &Promotion) -> String {
    let timeline = promotion.timeline.map_or_else(|| "never".into(), |timeline| timeline.to_string());
    format!(
        "{:>5}  {:<12} {timeline:>8}  {:<14} {:<19}  {}",
        promotion.epoch,
        promotion.server,
        promotion.switch.to_string(),
        out::moment(promotion.when_ms),
        promotion.because
    )
}
