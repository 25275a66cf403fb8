//! F35: faults by chance, one after another and two at once. A seed tells which (DOLMEN_DRILL_SEED): not when each meets
//! what, which is never twice the same on real processes.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;
use testkit::{Cut, Machines, Part};

#[derive(Clone, Copy, Debug)]
enum Fault {
    Killed,
    Frozen,
    CutOff,
    Mute,
    Lossy,
    PartKilled(Part),
    PartStopped(Part),
}

const FAULTS: &[Fault] = &[
    Fault::Killed,
    Fault::Frozen,
    Fault::CutOff,
    Fault::Mute,
    Fault::Lossy,
    Fault::PartKilled(Part::Control),
    Fault::PartKilled(Part::Manager),
    Fault::PartKilled(Part::Guard),
    Fault::PartKilled(Part::Postmaster),
    Fault::PartStopped(Part::Control),
    Fault::PartStopped(Part::Manager),
    Fault::PartStopped(Part::Guard),
    Fault::PartStopped(Part::Postmaster),
];

/// So many turns of one fault or two.
pub fn play(machines: &mut Machines, turns: u32) {
    let mut chance = Chance::new();
    for _ in 0..turns {
        let names = machines.names();
        let first = chance.below(names.len());
        let second = (first + 1 + chance.below(names.len() - 1)) % names.len();
        let mut hit = vec![(names[first].clone(), *chance.of(FAULTS))];
        if chance.below(3) == 0 {
            hit.push((names[second].clone(), *chance.of(FAULTS)));
        }
        eprintln!("    {hit:?}");
        for (name, fault) in &hit {
            strike(machines, name, *fault);
            chance.rest(1000);
        }
        chance.rest(6000);
        machines.network.heal();
        for (name, fault) in &hit {
            undo(machines, name, *fault);
            chance.rest(1000);
        }
        chance.rest(4000);
    }
}

/// A part that does not run at the moment is spared.
fn strike(machines: &mut Machines, name: &str, fault: Fault) {
    match fault {
        Fault::Killed => machines.kill(name),
        Fault::Frozen => machines.freeze(name),
        Fault::CutOff => machines.network.cut_off(name),
        Fault::Mute => {
            let others = machines.network.others(name);
            machines.network.cut(others.iter().map(|other| Cut::all(name, other)));
        }
        Fault::Lossy => machines.network.lose(30),
        Fault::PartKilled(part) => drop(machines.signal(name, &[part], Signal::KILL)),
        Fault::PartStopped(part) => drop(machines.signal(name, &[part], Signal::STOP)),
    }
}

fn undo(machines: &mut Machines, name: &str, fault: Fault) {
    match fault {
        Fault::Killed => machines.start(name),
        Fault::Frozen | Fault::PartStopped(_) => machines.thaw(name),
        Fault::CutOff | Fault::Mute | Fault::Lossy | Fault::PartKilled(_) => {}
    }
}

/// splitmix64.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let given = std::env::var("DOLMEN_DRILL_SEED").ok().and_then(|seed| seed.parse().ok());
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let seed = given.unwrap_or_else(now);
        eprintln!("    DOLMEN_DRILL_SEED={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// Up to so many milliseconds.
    fn rest(&mut self, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(self.next() % most_ms));
    }
}
