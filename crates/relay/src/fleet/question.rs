//! One check: asks a target what the plan says, and whether the answer is the expected one.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use plan::{Check, CheckKind};

use crate::probe::{Answered, ProbeError, Question, ask};
use crate::reason::{is_ours, reason};
use crate::secure::Secured;
use crate::stream::epoll;

/// Asks, and says in words how that went: Ok is good. None: that failed here and not there. `name`: that of the target,
/// if it has one.
pub(super) async fn check(
    target: SocketAddr,
    source: Option<IpAddr>,
    secured: Option<&Secured>,
    name: Option<&str>,
    check: &Check,
) -> Option<Result<String, String>> {
    let within = Duration::from_millis(check.timeout_ms);
    let asked = tokio::time::timeout(within, once(target, source, secured, name, check)).await;
    Some(match asked.unwrap_or(Err(ProbeError::Late(within))) {
        Ok(Some(answered)) => judged(check, &answered),
        Ok(None) => Ok("takes connections".to_owned()),
        Err(ProbeError::Connect(error)) if is_ours(&error) => {
            tracing::warn!("{target} cannot be checked: {}", reason(&error));
            return None;
        }
        Err(error) => Err(error.to_string()),
    })
}

async fn once(
    target: SocketAddr,
    source: Option<IpAddr>,
    secured: Option<&Secured>,
    name: Option<&str>,
    check: &Check,
) -> Result<Option<Answered>, ProbeError> {
    if check.kind == CheckKind::Tcp {
        return epoll::connect(target, source).await.map(|_| None).map_err(ProbeError::Connect);
    }
    let address = target.to_string();
    let question = Question {
        method: &check.method,
        path: &check.path,
        host: check.host.as_deref().or(name).unwrap_or(&address),
        wants_body: check.body.is_some(),
    };
    ask(target, source, secured, &question).await.map(Some)
}

fn judged(check: &Check, answered: &Answered) -> Result<String, String> {
    let status = answered.status;
    if !check.expects(status) {
        return Err(format!("answered {status}"));
    }
    let Some(text) = &check.body else { return Ok(format!("answered {status}")) };
    match memchr::memmem::find(&answered.body, text.as_bytes()) {
        Some(_) => Ok(format!("answered {status} with the expected text")),
        None => Err(format!("answered {status} without the expected text")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::planned;
    use super::*;

    #[test]
    fn what_fails_here_says_nothing_of_the_target() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let target = SocketAddr::from(([127, 0, 0, 1], 1));
        let checked = |source| runtime.block_on(check(target, source, None, None, &planned()));
        assert!(matches!(checked(None), Some(Err(text)) if text.contains("connection refused")));
        // No address of this computer.
        assert_eq!(checked(Some([192, 0, 2, 1].into())), None);
    }
}
