//! From the workers to the server: one state and one sentence.

use link::report::State;

use crate::life::Standing;

/// `once` says whether all workers were ready at some time: until then, what is not ready is starting.
pub(crate) fn of(workers: &[Standing], once: bool) -> (State, String) {
    let all = workers.len();
    let ready = workers.iter().filter(|standing| **standing == Standing::Ready).count();
    let noun = if all == 1 { "worker" } else { "workers" };
    let count = format!("{ready} of {all} {noun} ready");
    let troubles = workers.iter().enumerate().filter_map(|(index, standing)| match standing {
        Standing::Trouble(trouble) => Some(format!("worker {} {trouble}", index + 1)),
        Standing::Starting | Standing::Ready | Standing::Gone => None,
    });
    let troubles: Vec<_> = troubles.collect();
    match (troubles.first(), ready == all) {
        (_, true) => (State::Healthy, count),
        (Some(first), false) => (State::Unhealthy, format!("{count}: {first}")),
        (None, false) if once => (State::Unhealthy, count),
        (None, false) => (State::Starting, count),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Standing::{Gone, Ready, Starting, Trouble};

    #[test]
    fn the_first_trouble_is_told() {
        let trouble = |text: &str| Trouble(text.into());
        let ill = [Ready, trouble("exited with status 1, next try in 4 s"), trouble("too")];
        let cases: [(&[Standing], bool, State, &str); 7] = [
            (&[Starting, Starting], false, State::Starting, "0 of 2 workers ready"),
            (&[Ready, Starting], false, State::Starting, "1 of 2 workers ready"),
            (&[Ready, Ready], false, State::Healthy, "2 of 2 workers ready"),
            (&[Ready], true, State::Healthy, "1 of 1 worker ready"),
            (&[Ready, Starting], true, State::Unhealthy, "1 of 2 workers ready"),
            (&[Ready, Gone], true, State::Unhealthy, "1 of 2 workers ready"),
            (
                &ill,
                false,
                State::Unhealthy,
                "1 of 3 workers ready: worker 2 exited with status 1, next try in 4 s",
            ),
        ];
        for (workers, once, state, sentence) in cases {
            assert_eq!(of(workers, once), (state, sentence.to_owned()));
        }
    }
}
