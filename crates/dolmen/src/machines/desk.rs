//! Where an agent gives out tokens, and certificates for them.
//!
//! A machine joins in this order: the token is checked, then what the machine says of itself; control takes it in
//! as a member and keeps what it needs to know, sealed for it; the token is spent, on disk; then it is answered.
//! Killed anywhere before the last step, nobody has a certificate, and a token that was not spent takes in the
//! same machine again, since it comes with the same key, and no other in its name.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use link::Secrets;
use link::api::{
    self, Answer, Authority, CertificateDer, Fingerprint, Guests, Identity, Join, Joined, Sealed, Token,
    requested_key,
};
use link::control::{ControlError, REVOKED};
use plan::{Machine, Plan};

use super::agreed::{self, Agreed, AgreedError, Agreement, MACHINES, Machines, Member, PLAN, Vault};
use super::tokens::{MINUTES_MAX, Tokens};
use crate::site::State;

/// How far the clocks of two machines may be apart. Certificates, logs and cookies name times; leases do not.
const CLOCK_S: u64 = 60;

const SEED: usize = 32;

/// What an agent needs to take machines in.
pub struct Desk {
    state: State,
    me: Machine,
    guests: Guests,
    tokens: RefCell<Tokens>,
    /// One machine is taken in at a time.
    busy: Cell<bool>,
}

impl Desk {
    pub fn open(state: &State, me: &Machine, guests: Guests) -> std::io::Result<Self> {
        let tokens = Tokens::open(state.root())?;
        guests.replace(tokens.keys());
        let (state, me, tokens) = (state.clone(), me.clone(), RefCell::new(tokens));
        Ok(Self { state, me, guests, tokens, busy: Cell::new(false) })
    }

    /// The answer to the operator who wants a token.
    pub fn token(&self, plan: &Plan, machine: &str, minutes: u32) -> Answer {
        answer(self.give(plan, machine, minutes).map(Answer::Token))
    }

    fn give(&self, plan: &Plan, machine: &str, minutes: u32) -> Result<String, String> {
        if plan.machine(machine).is_none() {
            return Err(not_in_plan(plan, machine));
        }
        if machine == self.me.name {
            return Err(format!("{machine} is this machine, which belongs to the site already"));
        }
        if minutes == 0 || minutes > MINUTES_MAX {
            return Err(format!("a token is good for 1 to {MINUTES_MAX} minutes"));
        }
        let authority = self.authority(plan)?;
        let text = |error: &dyn std::error::Error| error.to_string();
        let mut seed = [0; SEED];
        // The kernel gives so few at once.
        rustix::rand::getrandom(&mut seed, rustix::rand::GetRandomFlags::empty()).map_err(|e| text(&e))?;
        let fingerprint = authority.fingerprint().map_err(|error| text(&error))?;
        let at: (&str, SocketAddr) = (&self.me.name, self.me.agent);
        let token = Token::new(&plan.site, machine, at, fingerprint, seed);
        let key = token.key().map_err(|error| text(&error))?;
        let until_s = now_s() + u64::from(minutes) * 60;
        self.tokens.borrow_mut().give(key, machine, until_s).map_err(|error| text(&error))?;
        self.guests.replace(self.tokens.borrow().keys());
        tracing::info!("gave a token for {machine}, good for {minutes} minutes");
        Ok(token.reveal())
    }

    /// The answer to a guest who wants to become a machine of the site.
    pub async fn join(&self, plan: &Plan, guest: Fingerprint, join: &Join) -> Answer {
        if self.busy.replace(true) {
            return answer(Err("another machine joins at this moment; try again".into()));
        }
        let joined = self.take_in(plan, guest, join).await;
        self.busy.set(false);
        if let Err(because) = &joined {
            tracing::warn!("a machine was not taken in: {because}");
        }
        answer(joined.map(|joined| Answer::Joined(Box::new(joined))))
    }

    /// The answer to a machine of the site that wants a newer certificate for the key and name of this one.
    pub fn renew(&self, plan: &Plan, shown: &CertificateDer<'_>, clock_s: u64) -> Answer {
        answer(self.certify(plan, shown, clock_s).map(Answer::Renewed))
    }

    fn certify(&self, plan: &Plan, shown: &CertificateDer<'_>, clock_s: u64) -> Result<String, String> {
        let machine = api::name_in(shown).map_err(|error| error.to_string())?;
        if plan.machine(&machine).is_none() {
            return Err(not_in_plan(plan, &machine));
        }
        clock(&machine, clock_s, &self.me.name, now_s())?;
        let certificate = self.authority(plan)?.renewed(shown).map_err(|error| error.to_string())?;
        tracing::info!("{machine} has a new certificate");
        Ok(certificate)
    }

    async fn take_in(&self, plan: &Plan, guest: Fingerprint, join: &Join) -> Result<Joined, String> {
        let machine = self.tokens.borrow().check(guest, now_s())?.to_owned();
        if plan.machine(&machine).is_none() {
            return Err(not_in_plan(plan, &machine));
        }
        clock(&machine, join.clock_s, &self.me.name, now_s())
            .map_err(|because| format!("{because}, and try again; the token stays good"))?;
        let authority = self.authority(plan)?;
        let text = |error: &dyn std::error::Error| error.to_string();
        let key = requested_key(&join.request).map_err(|error| text(&error))?;
        // As the operator, who has let this machine in by giving the token.
        let operator = Identity::open(&self.state.operator()).map_err(|error| text(&error))?;
        let agreement = Agreement::new(operator.heeding(self.guests.clone()), plan, &self.me.name);
        let (_, revoked) = agreement.read::<Vec<Fingerprint>>(REVOKED).await.map_err(late)?;
        if revoked.unwrap_or_default().contains(&key) || self.guests.has_revoked(&key) {
            return Err(format!(
                "this machine was {machine} before, and has left: its key was revoked\n\
                 hint: move /var/lib/dolmen/{} there away, so that it makes another; the token stays good",
                plan.site
            ));
        }
        let certificate = authority.sign(&machine, &join.request).map_err(|error| text(&error))?;
        let member = Member { key, sealing_key: join.sealing_key.clone() };
        // At once, since they belong together.
        let (in_force, secrets) = (self.state.in_force(), self.state.all_secrets());
        let (in_force, secrets) =
            (in_force.map_err(|error| text(&error))?.plan, secrets.map_err(|error| text(&error))?);
        // First of all, since it also says whether the key is one.
        let sealed = seal(&self.state, &[(&in_force, &secrets)], &machine, &member.sealing_key)
            .map_err(|error| text(&error))?;
        enter(&agreement, &authority, &machine, member).await?;
        agreement.put_vault(&authority, &machine, &sealed).await.map_err(|error| text(&error))?;
        // Whoever publishes a later plan after this sees the member, and seals for it.
        let (_, agreed) = agreement.read::<Agreed>(PLAN).await.map_err(late)?;
        if let Some(agreed) = agreed.filter(|agreed| agreed.plan.generation != in_force.generation) {
            let generation = agreed.plan.generation;
            return Err(format!(
                "{} does not go by generation {generation} yet; try again, the token stays good",
                self.me.name
            ));
        }
        self.tokens.borrow_mut().spend(guest, now_s()).map_err(|error| text(&error))?;
        tracing::info!("{machine} has joined, with dolmen {}", join.version);
        let revoked = self.guests.revoked();
        let authority = authority.certificate().to_owned();
        Ok(Joined { machine, certificate, authority, plan: plan.clone(), revoked })
    }

    fn authority(&self, plan: &Plan) -> Result<Authority, String> {
        let folder = self.authority_folder();
        if Authority::key(&folder).map_err(|error| error.to_string())?.is_none() {
            let keepers = plan.machines.iter().filter(|machine| agreed::is_keeper(plan, &machine.name));
            let keepers: Vec<&str> = keepers.map(|machine| machine.name.as_str()).collect();
            return Err(format!(
                "{} does not keep the authority's key; ask on {}",
                self.me.name,
                keepers.join(", ")
            ));
        }
        Authority::open(&folder).map_err(|error| error.to_string())
    }

    fn authority_folder(&self) -> PathBuf {
        self.state.authority()
    }
}

/// Makes it a member, unless one of its name is another machine.
async fn enter(
    agreement: &Agreement,
    authority: &Authority,
    machine: &str,
    member: Member,
) -> Result<(), String> {
    loop {
        let (version, machines) = agreement.read::<Machines>(MACHINES).await.map_err(late)?;
        let mut machines = machines.unwrap_or_default();
        match machines.machines.get(machine) {
            Some(known) if *known == member => return Ok(()),
            Some(known) if known.key != member.key => {
                return Err(format!(
                    "a machine named {machine} has joined before, and this is not the one: nothing was changed"
                ));
            }
            // The same one, which may have made another key to seal with.
            _ => machines.machines.insert(machine.to_owned(), member.clone()),
        };
        match agreement.propose(authority, MACHINES, version, &machines).await {
            Err(AgreedError::Control(ControlError::Changed(_))) => {}
            other => return other.map(drop).map_err(late),
        }
    }
}

/// What this machine knows of these generations and another one needs to, sealed for that one. The last one says who
/// keeps the authority.
pub fn seal(
    state: &State,
    generations: &[(&Plan, &Secrets)],
    machine: &str,
    key: &str,
) -> Result<Sealed, AgreedError> {
    let secrets = generations
        .iter()
        .map(|(plan, secrets)| (plan.generation, agreed::needed(plan, machine, secrets)))
        .collect();
    let Some((plan, _)) = generations.last() else { return Err(AgreedError::NotSealed) };
    let keeper = agreed::is_keeper(plan, machine);
    let authority = if keeper { Authority::key(&state.authority())? } else { None };
    Ok(Sealed::new(key, &agreed::purpose(&plan.site, machine), &Vault { secrets, authority })?)
}

fn late(error: AgreedError) -> String {
    format!("the machines cannot agree on it now: {error}; the token stays good")
}

fn not_in_plan(plan: &Plan, machine: &str) -> String {
    let names: Vec<&str> = plan.machines.iter().map(|machine| machine.name.as_str()).collect();
    format!("the site file has no machine {machine}; it has {}", names.join(", "))
}

/// Clocks that are too far apart, in a sentence.
fn clock(machine: &str, its_s: u64, me: &str, my_s: u64) -> Result<(), String> {
    let apart = its_s.abs_diff(my_s);
    if apart <= CLOCK_S {
        return Ok(());
    }
    let which = if its_s < my_s { "behind" } else { "ahead of" };
    Err(format!(
        "the clock of {machine} is {apart} s {which} that of {me}, and at most {CLOCK_S} s are tolerated: set it \
         (`timedatectl set-ntp true`)"
    ))
}

/// The same, for whoever sees by a greeting how far the other clock is ahead.
pub fn clock_note(machine: &str, ahead_s: i64, me: &str) -> Option<String> {
    let now_s = now_s();
    clock(machine, now_s.saturating_add_signed(ahead_s), me, now_s).err()
}

/// A time span as people say it.
pub fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} minutes", seconds / 60),
        7_200..172_800 => format!("{} hours", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// Seconds since 1970.
pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn answer(result: Result<Answer, String>) -> Answer {
    result.unwrap_or_else(|because| Answer::Refused { because })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_may_be_off_by_a_minute_and_not_by_an_hour() {
        assert!(clock("beta", 1000, "alpha", 1060).is_ok() && clock("beta", 1060, "alpha", 1000).is_ok());
        let because = clock("beta", 0, "alpha", 3600).unwrap_err();
        assert!(because.starts_with("the clock of beta is 3600 s behind that of alpha"), "{because}");
        assert!(clock("beta", 4600, "alpha", 1000).unwrap_err().contains("3600 s ahead of"));
    }
}
