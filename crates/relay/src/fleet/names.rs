//! Targets that have a name in place of an address: asked for again while we run.
//!
//! Several targets may share a name, each with one of its addresses. One that is in use stays with its target for as long
//! as the name leads to it, whatever the order of the answer. A target moves to another address without a gap: it stays
//! where it is until a check at the new one was good. A name that does not resolve changes nothing.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::resolve::Question;
use super::{Fleet, pace};

/// Members with one name, by their index, in the order of the plan.
pub(super) type Named = (String, Vec<usize>);

/// Who gets which address: those in use stay, free ones go to whoever has none.
fn share_out(now: &[Option<IpAddr>], addresses: &[IpAddr]) -> Vec<Option<IpAddr>> {
    let mut shares: Vec<Option<IpAddr>> = Vec::new();
    for address in now {
        let stays =
            address.filter(|address| addresses.contains(address) && !shares.contains(&Some(*address)));
        shares.push(stays);
    }
    let mut free = Vec::new();
    for address in addresses {
        if !shares.contains(&Some(*address)) && !free.contains(address) {
            free.push(*address);
        }
    }
    let mut free = free.into_iter();
    shares.iter_mut().filter(|share| share.is_none()).for_each(|share| *share = free.next());
    shares
}

impl Fleet {
    /// The names of this fleet, each with its members.
    pub(super) fn names(&self) -> Vec<Named> {
        let mut names: BTreeMap<(&str, u16), Vec<usize>> = BTreeMap::new();
        for (index, member) in self.members.iter().enumerate() {
            if let Some(host) = &member.target.lookup {
                names.entry((host, member.target.address.port())).or_default().push(index);
            }
        }
        names.into_iter().map(|((host, _), members)| (host.to_owned(), members)).collect()
    }

    /// Asks for one name for ever.
    pub(super) async fn follow(&self, (host, members): &Named) {
        let mut question = self.resolver.question(host);
        let mut trouble = None;
        for number in 0_u64.. {
            trouble = self.ask(&mut question, host, members, trouble).await;
            let lot = crate::thread::mix(number ^ (members[0] as u64) << 48);
            tokio::time::sleep(pace::pause(self.resolve_ms, lot)).await;
        }
    }

    /// Asks once. Says why it failed, if it did; `before`: why it failed last time.
    async fn ask(
        &self,
        question: &mut Question,
        host: &str,
        members: &[usize],
        before: Option<String>,
    ) -> Option<String> {
        match question.ask().await {
            Ok(addresses) => {
                if before.is_some() {
                    tracing::info!("{host} is resolved again");
                }
                self.lead(host, members, &addresses);
                None
            }
            Err(why) => {
                if before.as_ref() != Some(&why) {
                    tracing::warn!("{host} cannot be resolved: {why}; servers stay where they are");
                }
                for index in members.iter().filter(|index| self.members[**index].place.now().is_none()) {
                    self.vacate(*index, &format!("{host} cannot be resolved: {why}"));
                }
                Some(why)
            }
        }
    }

    /// The name leads to these addresses.
    fn lead(&self, host: &str, members: &[usize], addresses: &[IpAddr]) {
        let now: Vec<_> = members.iter().map(|index| self.members[*index].place.newest()).collect();
        for ((index, now), then) in members.iter().zip(&now).zip(share_out(&now, addresses)) {
            let member = &self.members[*index];
            member.place.lead(then);
            match then {
                None => self.vacate(*index, &format!("{host} leads to {} addresses only", addresses.len())),
                Some(address) if *now != then => {
                    tracing::info!("{}: {host} leads to {address}", member.target.name);
                    member.hurry.notify_one();
                }
                Some(_) => {}
            }
        }
    }

    /// This member has no address.
    fn vacate(&self, index: usize, because: &str) {
        let member = &self.members[index];
        let mut seen = member.seen();
        if let Some(change) = seen.health.gone(because) {
            seen.ejection.superseded();
            self.apply(member, &seen, &change.because, change.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(now: &[&str], addresses: &[&str]) -> Vec<String> {
        let parse = |text: &&str| text.parse().ok();
        let now: Vec<Option<IpAddr>> = now.iter().map(parse).collect();
        let addresses: Vec<IpAddr> = addresses.iter().filter_map(parse).collect();
        let text = |share: Option<IpAddr>| share.map_or("-".to_owned(), |address| address.to_string());
        share_out(&now, &addresses).into_iter().map(text).collect()
    }

    #[test]
    fn addresses_in_use_stay_whatever_the_order() {
        assert_eq!(shares(&["-"], &["10.0.0.1", "10.0.0.2"]), ["10.0.0.1"]);
        assert_eq!(shares(&["10.0.0.2"], &["10.0.0.1", "10.0.0.2"]), ["10.0.0.2"]);
        assert_eq!(shares(&["10.0.0.2"], &["10.0.0.1"]), ["10.0.0.1"]);
        assert_eq!(
            shares(&["-", "-", "-"], &["10.0.0.1", "10.0.0.1", "10.0.0.2"]),
            ["10.0.0.1", "10.0.0.2", "-"]
        );
        assert_eq!(shares(&["10.0.0.1", "10.0.0.2"], &["10.0.0.3", "10.0.0.2"]), ["10.0.0.3", "10.0.0.2"]);
        assert_eq!(shares(&["10.0.0.1", "10.0.0.2"], &["10.0.0.2"]), ["-", "10.0.0.2"]);
        assert_eq!(shares(&["10.0.0.1"], &[]), ["-"]);
    }
}
