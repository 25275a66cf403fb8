//! The fault drill: whole sites with real control, agents, gates and PostgreSQL, struck by one fault after another on
//! one cluster, under writers and readers at the gate of every machine. `drill/lines.rs` has one line for each fault.
//!
//! A plain test run does the most telling ones; `make drill` does all (DOLMEN_DRILL_ROUNDS), and prints the
//! table of outages; DOLMEN_DRILL_LINES=F13,switchover plays only the lines with such a number or such words. What
//! is left out, and why: F8 and F22 (a suspended machine, a wall clock that jumps) need a machine each, since time
//! namespaces do not move the wall clock, and nothing here reads it for a decision; F24 is a postgres that hangs as a
//! whole, since no device here can be made to stall; F25 (a slow fdatasync) for the same reason; of F26 there are busy
//! processors and a killed backend, but no limit by a control group, whose controllers a machine may keep elsewhere; F27,
//! F29 and F33 are tests of the gate and of PostgreSQL's settings in `crates/database`; the moments inside of a take-over
//! that F17 means are hit by the simulation, here only by chance; F20 with five voters needs five machines.

#![allow(clippy::unwrap_used)] // a test

#[path = "drill/bed.rs"]
mod bed;
#[path = "drill/lines.rs"]
mod lines;
#[path = "drill/mix.rs"]
mod mix;
#[path = "drill/scenario.rs"]
mod scenario;
#[path = "drill/table.rs"]
mod table;

use bed::Bed;
use testkit::Machines;

const DOLMEN: &str = env!("CARGO_BIN_EXE_dolmen");

const THREE: &str = "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n\
    [database]\non = [\"alpha\", \"beta\", \"gamma\"]\n";

/// The third one only votes.
const TWO: &str = "[machines]\nalpha = \"10.0.0.1\"\nbeta = \"10.0.0.2\"\ngamma = \"10.0.0.3\"\n\
    [database]\non = [\"alpha\", \"beta\"]\n";

/// How often the whole list is done; none: the short one.
fn rounds() -> Option<u32> {
    std::env::var("DOLMEN_DRILL_ROUNDS").ok()?.parse().ok()
}

/// The bounds are for a machine of its own and a release build. Whoever plays the whole list has little else to do; a
/// plain test run has other tests beside it on every core. What must never happen is judged alike.
fn slack() -> f32 {
    if rounds().is_some() { 2.0 } else { 4.0 }
}

/// Only these lines.
fn named() -> Option<String> {
    std::env::var("DOLMEN_DRILL_LINES").ok()
}

#[test]
fn three_data_machines_lose_nothing_whatever_happens_to_whom() {
    if !Machines::possible() {
        return;
    }
    let mut bed = Bed::up(DOLMEN, 176, THREE, slack());
    let named = named();
    match rounds() {
        None => bed.play(lines::SHORT, named.as_deref()),
        Some(rounds) => (0..rounds).for_each(|_| bed.play(lines::LONG, named.as_deref())),
    }
    bed.end();
}

#[test]
fn two_data_machines_and_a_voter_lose_nothing_either() {
    if !Machines::possible() {
        return;
    }
    let mut bed = Bed::up(DOLMEN, 177, TWO, slack());
    let named = named();
    match rounds() {
        None => bed.play(lines::SHORT_OF_TWO, named.as_deref()),
        Some(rounds) => (0..rounds).for_each(|_| bed.play(lines::LONG_OF_TWO, named.as_deref())),
    }
    bed.end();
}
