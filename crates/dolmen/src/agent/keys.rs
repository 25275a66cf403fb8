//! The machine's certificate in the hands of its agent: renewed by itself long before it ends, while servers and
//! connections go on.
//!
//! A machine that keeps the authority renews its own. Any other asks one that does: it proves its key in the handshake,
//! which is all that a new certificate for the same key and name needs. So nobody waits for control, and a key that
//! was revoked gets none.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use link::api::{self, Answer, ApiError, Ask, Authority, Due, Identity, OPERATOR, call};
use plan::{Machine, Plan};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

use super::Happening;
use crate::machines::agreed;
use crate::machines::desk::{now_s, span};
use crate::site::State;

/// The clock may be set: what is due is looked at this often.
const LOOK: Duration = Duration::from_secs(60);

/// The pause before what failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// How long a machine may take to sign.
const ANSWER: Duration = Duration::from_secs(5);

/// What there is to say about the certificate. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct CertificateNote(Rc<RefCell<Option<String>>>);

impl CertificateNote {
    pub fn sentence(&self) -> Option<String> {
        self.0.borrow().clone()
    }

    fn is(&self, sentence: Option<String>) {
        let told = self.0.replace(sentence.clone());
        if let Some(sentence) = sentence.filter(|sentence| told.as_ref() != Some(sentence)) {
            tracing::warn!("{sentence}");
        }
    }
}

/// What renews a machine's certificate.
pub struct Keys {
    state: State,
    machine: String,
    plan: watch::Receiver<Arc<Plan>>,
    identity: Identity,
    agent: mpsc::Sender<Happening>,
    note: CertificateNote,
}

impl Keys {
    /// Begins to keep this machine's certificate good. Must be called on a `LocalSet`.
    pub fn begin(
        (state, machine): (&State, &str),
        plan: watch::Receiver<Arc<Plan>>,
        identity: Identity,
        agent: mpsc::Sender<Happening>,
    ) -> CertificateNote {
        let note = CertificateNote::default();
        let (state, machine) = (state.clone(), machine.to_owned());
        let keys = Self { state, machine, plan, identity, agent, note: note.clone() };
        tokio::task::spawn_local(keys.keep());
        note
    }

    async fn keep(self) {
        loop {
            let pause = match self.due() {
                Ok(Due::Nothing(time)) => time.min(LOOK),
                Ok(due) => self.renew(due).await,
                Err(error) => {
                    self.note.is(Some(format!("the certificate of this machine cannot be read: {error}")));
                    RETRY
                }
            };
            sleep(pause).await;
        }
    }

    fn due(&self) -> Result<Due, api::AuthorityError> {
        Ok(self.identity.validity()?.due(now_s()))
    }

    async fn renew(&self, due: Due) -> Duration {
        let plan = Arc::clone(&self.plan.borrow());
        let folder = self.state.machine(&self.machine).path().to_owned();
        let renewed = match self.certificate(&plan, due).await {
            Ok(()) => Identity::open(&folder).map_err(|error| error.to_string()),
            Err(because) => Err(because),
        };
        match renewed {
            Ok(newer) => {
                self.identity.renew(&newer);
                self.note.is(None);
                tracing::info!("shows a new certificate");
                drop(self.agent.send(Happening::NewKeys).await);
                RETRY
            }
            Err(because) => {
                self.note.is(Some(because));
                RETRY
            }
        }
    }

    /// Puts a newer certificate beside the key, unless somebody has done so.
    async fn certificate(&self, plan: &Plan, due: Due) -> Result<(), String> {
        let text = |error: &dyn std::error::Error| error.to_string();
        let folder = self.state.machine(&self.machine).path().to_owned();
        let kept = Identity::open(&folder).and_then(|kept| kept.validity()).map_err(|error| text(&error))?;
        if matches!(kept.due(now_s()), Due::Nothing(_)) {
            return Ok(());
        }
        if Authority::key(&self.state.authority()).map_err(|error| text(&error))?.is_some() {
            let authority = Authority::open(&self.state.authority()).map_err(|error| text(&error))?;
            if self.keeps_operator(plan) {
                authority.renew(OPERATOR, &self.state.operator()).map_err(|error| text(&error))?;
            }
            return authority.renew(&self.machine, &folder).map_err(|error| text(&error));
        }
        if let Due::Ended(ago) = due {
            return Err(ended(plan, &self.machine, ago));
        }
        let certificate = self.ask(plan).await?;
        let authority = std::fs::read_to_string(folder.join("ca.crt")).map_err(|error| text(&error))?;
        api::put(&folder, &certificate, &authority).map_err(|error| text(&error))
    }

    /// On `up` the operator's identity is that of all machines, and renewed by the first.
    fn keeps_operator(&self, plan: &Plan) -> bool {
        let is_first = plan.machines.first().is_some_and(|first| first.name == self.machine);
        self.state.about().machine.is_some() || is_first
    }

    /// A new certificate, from whichever machine may sign it.
    async fn ask(&self, plan: &Plan) -> Result<String, String> {
        let mut because = Vec::new();
        for keeper in plan.machines.iter().filter(|other| agreed::is_keeper(plan, &other.name)) {
            match self.ask_one(plan, keeper).await {
                Ok(certificate) => return Ok(certificate),
                Err(error) => because.push(format!("{}: {error}", keeper.name)),
            }
        }
        Err(format!("the certificate of this machine could not be renewed yet: {}", because.join("; ")))
    }

    async fn ask_one(&self, plan: &Plan, keeper: &Machine) -> Result<String, ApiError> {
        let mut conversation = call(&self.identity, &plan.site, &keeper.name, keeper.agent).await?;
        conversation.ask(&Ask::Renew { clock_s: now_s() }).await?;
        let answer = timeout(ANSWER, conversation.answer()).await;
        match answer.map_err(|_| ApiError::Slow(keeper.agent))?? {
            Answer::Renewed(certificate) => Ok(certificate),
            other => Err(link::frame::FrameError::Unexpected(format!("{other:?}")).into()),
        }
    }
}

/// What to do about a certificate that has ended.
pub fn ended(plan: &Plan, machine: &str, ago: Duration) -> String {
    let keeper = plan.machines.iter().find(|other| agreed::is_keeper(plan, &other.name));
    let keeper = keeper.map_or("a machine that votes", |keeper| &keeper.name);
    format!(
        "the certificate of {machine} ended {} ago by the clock here, so that no other machine talks to it: \
         `dolmen token {machine}` on {keeper}, then `dolmen join TOKEN` here; if the clock is wrong, set it \
         (`timedatectl set-ntp true`)",
        span(ago.as_secs())
    )
}
