//! What `up` prints: a line for each server when it becomes ready, then the addresses to open, then changes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use link::report::{MachineReport, MachineState, ServerReport, State};
use plan::{Plan, Role};

use crate::out;

/// A sentence of a server that is not ready yet is shown when it stood this long: most are over before.
const PATIENCE: Duration = Duration::from_millis(1500);

struct Seen {
    state: State,
    because: String,
    since: Instant,
    shown: bool,
}

pub struct Progress {
    plan: Plan,
    began: Instant,
    seen: BTreeMap<String, Seen>,
    ready: bool,
    /// Whether what is seen first is no news.
    goes_on: bool,
}

impl Progress {
    /// `goes_on`: whether the site was up before, and only changes are to be told.
    pub fn new(plan: &Plan, began: Instant, goes_on: bool) -> Self {
        Self { plan: plan.clone(), began, seen: BTreeMap::new(), ready: goes_on, goes_on }
    }

    /// Takes the reports as they are now; true when all is healthy for the first time.
    pub fn show(&mut self, reports: &[MachineReport]) -> bool {
        for server in reports.iter().flat_map(|machine| &machine.servers) {
            self.server(server);
        }
        let healthy = is_fine(&self.plan, reports);
        let first = healthy && !self.ready;
        self.ready |= healthy;
        first
    }

    fn server(&mut self, server: &ServerReport) {
        let now = Instant::now();
        // An agent that was not reached yet tells nothing.
        if self.goes_on && server.pid.is_none() && !self.seen.contains_key(&server.name) {
            return;
        }
        let first = if self.goes_on { server.state } else { State::Starting };
        let seen = self.seen.entry(server.name.clone()).or_insert_with(|| Seen {
            state: first,
            because: String::new(),
            since: now,
            shown: true,
        });
        let because = server.because.split("; next try").next().unwrap_or_default();
        let changed_state = seen.state != server.state;
        // Figures in a sentence (bytes behind) change all the time once a server is healthy.
        if changed_state || (server.state != State::Healthy && seen.because != because) {
            *seen = Seen { state: server.state, because: because.to_owned(), since: now, shown: false };
        }
        let at_once = changed_state && (server.state == State::Healthy || self.ready);
        if !seen.shown && (at_once || seen.since.elapsed() > PATIENCE) {
            seen.shown = true;
            out::line(&line(self.began, self.ready, server));
        }
    }

    /// Whether all is as wanted but balancers that lack a server to send requests to: they serve, and nothing here
    /// would bring those servers up.
    pub fn waits_for_others(&self, reports: &[MachineReport]) -> bool {
        let up = |machine: &MachineReport| machine.state == MachineState::Up;
        let lacks = |server: &ServerReport| server.role == Role::Balancer && server.state == State::Unhealthy;
        reports.len() == self.plan.machines.len()
            && reports.iter().all(up)
            && self.not_as_wanted(reports).all(lacks)
            && waits_for_nobody(is_synchronous(&self.plan), reports).is_none()
    }

    /// What is not healthy, in sentences.
    pub fn wrong(&self, reports: &[MachineReport]) -> Vec<String> {
        let wrong = self.not_as_wanted(reports);
        let wrong = wrong.map(|server| format!("{} is {}: {}", server.name, server.state, server.because));
        wrong.chain(waits_for_nobody(is_synchronous(&self.plan), reports)).collect()
    }

    fn not_as_wanted<'a>(&'a self, reports: &'a [MachineReport]) -> impl Iterator<Item = &'a ServerReport> {
        let servers = reports.iter().flat_map(|machine| &machine.servers);
        servers.filter(|server| !is_as_wanted(&self.plan, server))
    }
}

/// Whether the plan promises that a commit is on two machines.
pub fn is_synchronous(plan: &Plan) -> bool {
    plan.database.as_ref().is_some_and(|database| database.synchronous && database.url.is_none())
}

/// All machines up, all servers as they should be, and commits as safe as the plan promises.
pub fn is_fine(plan: &Plan, reports: &[MachineReport]) -> bool {
    let fine = |machine: &MachineReport| {
        // One that says anything else does not go by the plan.
        let follows = machine.state == MachineState::Up && machine.because == crate::agent::ANSWERS;
        follows && machine.servers.iter().all(|server| is_as_wanted(plan, server))
    };
    let waits = waits_for_nobody(is_synchronous(plan), reports).is_some();
    !reports.is_empty() && reports.iter().all(fine) && !waits
}

/// Healthy, or drained by order.
pub fn is_as_wanted(plan: &Plan, server: &ServerReport) -> bool {
    let drained = server.state == State::Draining && plan.drained.contains(&server.name);
    server.state == State::Healthy || drained
}

/// A healthy primary that no replica follows synchronously yet, as control has it, though the plan says that one does.
pub fn waits_for_nobody(synchronous: bool, reports: &[MachineReport]) -> Option<String> {
    let servers = reports.iter().flat_map(|machine| &machine.servers);
    let mut databases = servers.filter_map(|server| Some((server, server.database.as_ref()?)));
    let (primary, database) = databases.find(|(_, database)| database.primary)?;
    // Before control has it in the record, it may not take over, and the primary would go on without it.
    let is_agreed =
        |name: &String| database.agreed.as_ref().is_none_or(|agreed| agreed.synchronous.contains(name));
    let follows = database
        .replicas
        .iter()
        .any(|replica| replica.synchronous && replica.state == "streaming" && is_agreed(&replica.name));
    (synchronous && !follows && primary.state == State::Healthy)
        .then(|| format!("{} has no synchronous replica yet: a commit is on one machine only", primary.name))
}

fn line(began: Instant, ready: bool, server: &ServerReport) -> String {
    let state = out::state(server.state, &format!("{:<9}", server.state));
    let when = if ready { String::new() } else { format!("{:>5.1} s  ", began.elapsed().as_secs_f64()) };
    let because = out::faint(&server.because);
    format!("  {when}{:<12} {:<8} {state}  {because}", server.name, server.machine)
}

/// Where to look, once all is ready.
pub fn addresses(plan: &Plan, began: Instant) {
    let (servers, machines) = (plan.servers.len(), plan.machines.len());
    let computers = if machines == 1 { "one machine".into() } else { format!("{machines} machines") };
    out::line("");
    out::line(&out::strong(&format!(
        "{} is up: {servers} servers on {computers}, ready in {:.1} s",
        plan.site,
        began.elapsed().as_secs_f64()
    )));
    let http =
        plan.servers.iter().find(|server| matches!(server.role, Role::Balancer | Role::Web | Role::App));
    for server in plan.role(Role::Balancer).chain(http.filter(|server| server.role != Role::Balancer)) {
        if let Some(address) = server.listens("http") {
            out::line(&format!("  page      http://{address}/"));
        }
    }
    for server in plan.role(Role::Dns) {
        if let (Some(address), Some(dns)) = (server.listens("dns"), &plan.dns) {
            out::line(&format!("  name      dig @{} -p {} {}", address.ip(), address.port(), dns.site));
        }
    }
    for server in plan.role(Role::Gate) {
        if let (Some(write), Some(read)) = (server.listens("read-write"), server.listens("read-only")) {
            out::line(&format!("  {:<9} postgres://{write} (read-only: {read})", server.name));
        }
    }
    for sentence in plan.notes() {
        out::line(&format!("  note      {sentence}"));
    }
    out::line("");
}
