//! Which part runs on which machine: as written in `on`, or where a careful person would put it.
//!
//! The defaults: one machine runs everything. Of several, the first stands in front (DNS and balancer) and,
//! when at least two others remain, the others hold web, app and database; of two machines both do. Of the
//! machines for databases the first two are taken, a primary and a replica. DNS and balancer follow each
//! other, and so do web and app, when only one of them says `on`. A part that stands alone runs everywhere.

use crate::meant::{Machine, Place, Role};
use crate::mistake::{Mistake, Notes};
use crate::typed::{On, Typed, did_you_mean};

/// A primary and a replica.
const DATABASES: usize = 2;
/// With fewer machines than this, none is kept for the front alone.
const MACHINES_FOR_A_FRONT: usize = 3;

/// Which parts a site has: all of the path for a `domain` with an `[app]`, else those it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Force {
    pub(crate) dns: bool,
    pub(crate) balancer: bool,
    pub(crate) web: bool,
    pub(crate) app: bool,
    pub(crate) database: bool,
}

impl Force {
    pub(crate) fn of(typed: &Typed) -> Force {
        let names = typed.names;
        let whole = names.domain && names.app;
        Force {
            dns: whole || names.dns,
            balancer: whole || names.balancer,
            web: whole || names.web,
            app: names.app,
            database: whole || names.database,
        }
    }

    pub(crate) fn is_nothing(self) -> bool {
        !(self.has_front() || self.has_back())
    }

    fn has_front(self) -> bool {
        self.dns || self.balancer
    }

    fn has_back(self) -> bool {
        self.web || self.app || self.database
    }
}

/// The names of the machines of each role, in the order in which its servers are numbered.
#[derive(Clone, Debug, Default)]
pub(crate) struct Placement {
    dns: Vec<String>,
    balancer: Vec<String>,
    web: Vec<String>,
    app: Vec<String>,
    gate: Vec<String>,
    control: Vec<String>,
    database: Vec<String>,
    /// The machines among which those that vote are chosen, in this order.
    pub(crate) may_vote: Vec<String>,
}

impl Placement {
    pub(crate) fn of(&self, role: Role) -> &[String] {
        match role {
            Role::Dns => &self.dns,
            Role::Balancer => &self.balancer,
            Role::Web => &self.web,
            Role::App => &self.app,
            Role::Gate => &self.gate,
            Role::Database => &self.database,
            Role::Control => &self.control,
            Role::Monitor => &[],
        }
    }
}

/// Places every part that is in force, and notes each `on` that names no machine of the site.
pub(crate) fn place(
    typed: &Typed,
    force: Force,
    (machines, place): (&[Machine], Place),
    notes: &Notes,
) -> Placement {
    let chosen = |on: &On| chosen(on, typed, machines, notes);
    let dns = typed.dns.as_ref().and_then(|section| chosen(&section.on));
    let balancer = typed.balancer.as_ref().and_then(|section| chosen(&section.on));
    let web = typed.web.as_ref().and_then(|section| chosen(&section.on));
    let app = typed.app.as_ref().and_then(|section| chosen(&section.on));
    let database = typed.database.as_ref().and_then(|section| chosen(&section.on));
    typed.monitor.iter().for_each(|section| drop(chosen(&section.on)));
    let control = typed.control.as_ref().and_then(|section| chosen(&section.on));

    let (front, back) = defaults(force, machines);
    let first_of = |one: &Option<Vec<String>>, other: &Option<Vec<String>>, default: &[String]| {
        one.clone().or_else(|| other.clone()).unwrap_or_else(|| default.to_vec())
    };
    let when = |in_force: bool, machines: Vec<String>| if in_force { machines } else { Vec::new() };
    let apps = when(force.app, first_of(&app, &web, &back));
    let has_url = typed.database.as_ref().is_some_and(|section| section.has_url);
    let databases = database.unwrap_or_else(|| back.iter().take(DATABASES).cloned().collect());
    let own_database = force.database && !has_url;
    // Real machines agree on the plan itself.
    let agrees = own_database || (place == Place::Machines && machines.len() > 1);
    Placement {
        dns: when(force.dns, first_of(&dns, &balancer, &front)),
        balancer: when(force.balancer, first_of(&balancer, &dns, &front)),
        web: when(force.web, first_of(&web, &app, &back)),
        gate: when(force.database, if force.app { apps.clone() } else { names(machines) }),
        app: apps,
        control: when(agrees, names(machines)),
        database: when(own_database, databases),
        may_vote: control.unwrap_or_else(|| names(machines)),
    }
}

/// The machines that stand in front and those behind, for parts that do not say `on`.
fn defaults(force: Force, machines: &[Machine]) -> (Vec<String>, Vec<String>) {
    let all = names(machines);
    let front = if force.has_back() { all[..1.min(all.len())].to_vec() } else { all.clone() };
    let keeps_front = force.has_front() && all.len() >= MACHINES_FOR_A_FRONT;
    let back = if keeps_front { all[1..].to_vec() } else { all };
    (front, back)
}

fn names(machines: &[Machine]) -> Vec<String> {
    machines.iter().map(|machine| machine.name.clone()).collect()
}

/// The machines of an `on`, or None when the default holds.
fn chosen(on: &On, typed: &Typed, machines: &[Machine], notes: &Notes) -> Option<Vec<String>> {
    // A [machines] that could not be read says nothing about which machines there are.
    if typed.names.machines && typed.machines.is_none() {
        return None;
    }
    let mut chosen: Vec<String> = Vec::new();
    for name in &on.as_ref()?.value {
        if !machines.iter().any(|machine| machine.name == name.value) {
            let known = machines.iter().map(|machine| machine.name.as_str());
            let all = || match typed.names.machines {
                true => format!("the machines are {}", names(machines).join(", ")),
                false => "without [machines] there is only `alpha`".to_owned(),
            };
            let hint = did_you_mean(&name.value, known).unwrap_or_else(all);
            let message = format!("unknown machine {:?}", name.value);
            notes.note(Mistake::at(name.span.clone(), message).hint(hint));
        } else if chosen.contains(&name.value) {
            let message = format!("the machine {:?} is named twice", name.value);
            let hint = "one machine runs one server of each role";
            notes.note(Mistake::at(name.span.clone(), message).hint(hint));
        } else {
            chosen.push(name.value.clone());
        }
    }
    (!chosen.is_empty()).then_some(chosen)
}
