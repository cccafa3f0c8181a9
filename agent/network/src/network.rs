//! Pods' networks, by CNI.

mod attach;
mod attachment;
mod chain;
mod default;
mod host_end;
mod namespace;
mod recover;
mod store;
mod turn;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::{Duration, Instant};

use coracle_cni::{ConfigList, Plugins, Running, Version, end_executions, first_network};
use coracle_cni_plugins::PLUGINS;
use coracle_model::PodUid;

use self::attachment::{Attachment, AttachmentId, IFNAME, Lists, args};
use self::chain::{Chain, Subject};
use self::namespace::NamespaceId;
use self::store::Store;
use crate::NetworkError;

pub use self::attach::{Attach, Bandwidth, PortMapping};
pub use self::attachment::Attached;
pub use self::default::DefaultNetwork;
pub use self::host_end::HostEnd;

/// Where everything is.
#[derive(Clone, Debug)]
pub struct NetworkSettings {
    /// Configurations of networks. The first one by name is the network of pods.
    pub conf_dir: PathBuf,
    /// Programs of plugins that are not ours, in the order they are looked for.
    pub bin_dirs: Vec<PathBuf>,
    /// What is on record of attachments. It must not outlive the boot.
    pub state_dir: PathBuf,
    /// The network where no configuration is.
    pub default: DefaultNetwork,
    /// How long the plugins of a network may take together for one verb.
    pub deadline: Duration,
}

/// The driver of CNI: attaches sandboxes to the network there is, and takes that back.
///
/// Everything blocks for as long as plugins take, up to the deadline: each call belongs on a thread of its own. Calls for
/// different sandboxes run side by side; those for one wait for each other.
pub struct Network {
    settings: NetworkSettings,
    plugins: &'static Plugins,
    store: Store,
    /// What the files say, but for what is being changed.
    known: Mutex<BTreeMap<AttachmentId, Known>>,
    lists: Lists,
    /// Held for writing by GC: an attachment made meanwhile would not be among the valid ones.
    collecting: RwLock<()>,
}

/// One attachment.
#[derive(Default)]
struct Known {
    /// Whose turn it is.
    turn: Arc<Mutex<()>>,
    attachment: Option<Arc<Attachment>>,
    /// Nobody wants what an ADD that goes on is to make.
    unwanted: bool,
}

// === impl Network ===

impl Network {
    /// Reads what is on record, and ends the programs of plugins that an agent that was killed has left running: a DEL
    /// must not meet an ADD that still goes on.
    ///
    /// # Errors
    /// The directory of attachments could not be made or listed, or the default network is none.
    pub fn new(settings: NetworkSettings) -> Result<Self, NetworkError> {
        settings.default.list().map_err(|source| NetworkError::Default { source })?;
        let store = Store::open(&settings.state_dir)?;
        let known = store.load()?;
        let is_ours = |running: &Running| {
            let attachment = AttachmentId::parse(&running.container_id).and_then(|id| known.get(&id));
            attachment.is_some_and(|attachment| attachment.netns.as_ref() == Some(&running.netns))
        };
        match end_executions(is_ours) {
            Ok(0) => {}
            Ok(count) => tracing::info!(count, "ended programs of plugins that an earlier agent has left"),
            Err(error) => {
                tracing::warn!(%error, "programs of plugins that an earlier agent has left may still run")
            }
        }
        let lists = Lists::default();
        let known = known.into_iter().map(|(id, mut attachment)| {
            attachment.list = attachment.list.map(|list| lists.shared(list));
            (id, Known { attachment: Some(Arc::new(attachment)), ..Known::default() })
        });
        let known = Mutex::new(known.collect());
        Ok(Self { settings, plugins: &PLUGINS, store, known, lists, collecting: RwLock::default() })
    }

    /// Attaches a sandbox. One that is attached stays as it is; what an earlier try has left is taken back before.
    ///
    /// # Errors
    /// The configuration cannot be used, or a plugin failed. What was made is taken back, as far as that goes; where it
    /// does not, the attachment stays on record and [`Network::del`] is owed.
    pub fn add(&self, attach: &Attach<'_>) -> Result<Attached, NetworkError> {
        let id = attach.id();
        let _going = self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        self.in_turn(&id, || {
            if let Some(known) = self.of(&id) {
                if let Some(attached) = known.attached() {
                    return Ok(attached);
                }
                self.take_back(&id, &known, false)?;
            }
            let mut attachment = self.asked_for(attach, self.network()?)?;
            // Once on record, DEL is owed with this very list, whatever becomes of its file: one that names a program
            // that is not there would owe what cannot be done.
            self.with_list(&attachment, |chain| {
                chain.ensure_installed(&self.subject(&id, &attachment, false))
            })?;
            self.record(&id, &attachment)?;
            let added = self.with_list(&attachment, |chain| {
                let result = chain.add(&self.subject(&id, &attachment, false), &|| self.is_unwanted(&id))?;
                match result.ips.iter().any(|ip| ip.address.addr().is_unspecified()) {
                    true => Err(NetworkError::Unspecified { network: chain.list.name.clone() }),
                    false => Ok(result),
                }
            });
            let recorded = added.and_then(|result| {
                attachment.result = Some(result);
                self.record(&id, &attachment)
            });
            if let Err(error) = recorded {
                attachment.result = None;
                if let Err(owed) = self.take_back(&id, &attachment, false) {
                    tracing::warn!(pod = attachment.pod, error = %owed, "what a failed attachment has left stays for now");
                }
                return Err(error);
            }
            attachment.attached().ok_or(NetworkError::NoResult)
        })
    }

    /// Nobody wants what an ADD of this pod is to make that goes on: the program of a plugin that it waits for is ended, no
    /// further plugin is called, and it fails. For whoever is about to call [`Network::del`], which waits for it.
    pub fn interrupt(&self, uid: &PodUid) {
        let mut unwanted = BTreeMap::new();
        for (id, known) in self.lock().iter_mut().filter(|(id, _)| id.uid == *uid) {
            let Some(attachment) = known.attachment.as_ref().filter(|known| known.result.is_none()) else {
                continue;
            };
            // Where nobody is at work, there is nothing to be ended.
            if matches!(known.turn.try_lock(), Err(TryLockError::WouldBlock)) {
                known.unwanted = true;
                unwanted.insert(id.to_string(), attachment.netns.clone());
            }
        }
        if unwanted.is_empty() {
            return;
        }
        // Not the DEL that follows.
        let is_theirs = |running: &Running| {
            let netns = unwanted.get(&running.container_id);
            running.command == "ADD" && netns.is_some_and(|netns| netns.as_ref() == Some(&running.netns))
        };
        if let Err(error) = end_executions(is_theirs) {
            tracing::warn!(pod = %uid, %error, "a plugin that nobody waits for may still run");
        }
    }

    /// Takes back an attachment of a pod, or without an attempt all of them. `namespace_ends`: the caller ends the pod's
    /// network namespace right after.
    ///
    /// # Errors
    /// A plugin failed: the attachment stays on record, and this is to be called again.
    pub fn del(&self, uid: &PodUid, attempt: Option<u32>, namespace_ends: bool) -> Result<(), NetworkError> {
        let _going = self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        let ids = self.ids(|id| id.uid == *uid && attempt.is_none_or(|attempt| id.attempt == attempt));
        all(ids.iter().filter_map(|id| self.del_one(id, namespace_ends).err()).collect())
    }

    /// The sandboxes of which something is on record, be it that DEL is owed. From memory.
    pub fn on_record(&self) -> Vec<(PodUid, u32)> {
        self.ids(|_| true).into_iter().map(|id| (id.uid, id.attempt)).collect()
    }

    /// What a sandbox has, if it is attached. From memory.
    pub fn attached(&self, uid: &PodUid, attempt: u32) -> Option<Attached> {
        self.of(&AttachmentId { uid: uid.clone(), attempt })?.attached()
    }

    /// Whether it is on record what a sandbox was attached to, and with what: then there is nothing to be read back
    /// ([`Network::adopt`]). Answers from memory.
    pub fn knows(&self, uid: &PodUid, attempt: u32) -> bool {
        self.of(&AttachmentId { uid: uid.clone(), attempt }).is_some_and(|known| known.list.is_some())
    }

    /// Whether an attachment is as ADD has left it.
    ///
    /// # Errors
    /// What is not, or that it is not attached. After a plugin has said so once, it will not become better.
    pub fn check(&self, uid: &PodUid, attempt: u32) -> Result<(), NetworkError> {
        let id = AttachmentId { uid: uid.clone(), attempt };
        let _going = self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        self.in_turn(&id, || {
            let known = self.of(&id).filter(|known| known.result.is_some());
            let known = known.ok_or_else(|| NetworkError::NotAttached { id: id.to_string() })?;
            self.with_list(&known, |chain| match chain.list.disable_check {
                true => Ok(()),
                false => chain.check(&self.subject(&id, &known, false)),
            })
        })
    }

    /// Takes back everything that belongs to none of the sandboxes given: what is on record, and what only plugins know
    /// of. For when an agent starts; attachments wait until it has ended. So that they do not wait for long, no DEL is
    /// begun once the time for one is over; [`Network::del`] is owed then.
    ///
    /// # Errors
    /// What is still there.
    pub fn gc(&self, valid: &BTreeSet<(PodUid, u32)>) -> Result<(), NetworkError> {
        let _alone = self.collecting.write().unwrap_or_else(PoisonError::into_inner);
        let stale = self.ids(|id| !valid.contains(&(id.uid.clone(), id.attempt)));
        let until = Instant::now() + self.settings.deadline;
        let del = |id: &AttachmentId| match Instant::now() < until {
            true => self.del_one(id, false).err(),
            false => Some(NetworkError::Postponed { id: id.to_string() }),
        };
        let mut failures: Vec<_> = stale.iter().filter_map(del).collect();

        // Networks that were configured earlier have pods as well.
        let mut lists = vec![];
        let known: Vec<_> =
            self.ids(|_| true).into_iter().filter_map(|id| Some((self.of(&id)?, id))).collect();
        match self.network() {
            Ok(list) => lists.push(list),
            Err(error) => failures.push(error),
        }
        for list in known.iter().filter_map(|(attachment, _)| attachment.list.clone()) {
            if !lists.iter().any(|other: &Arc<ConfigList>| other.name == list.name) {
                lists.push(list);
            }
        }
        for list in lists.iter().filter(|list| list.version >= Version::V1_1_0 && !list.disable_gc) {
            let of_it = known.iter().filter(|(attachment, _)| {
                attachment.list.as_ref().is_none_or(|other| other.name == list.name)
            });
            let valid: Vec<_> = of_it.map(|(_, id)| (id.to_string(), IFNAME.to_owned())).collect();
            failures.extend(self.chain(list).gc(&valid));
        }
        all(failures)
    }

    /// Whether pods can be attached now: whether there is a configuration that can be used, and its plugins say so.
    ///
    /// # Errors
    /// Why not.
    pub fn status(&self) -> Result<(), NetworkError> {
        let list = self.network()?;
        match list.version >= Version::V1_1_0 {
            true => self.chain(&list).status(),
            false => Ok(()),
        }
    }

    /// Makes again what our plugins have made in rule sets of all attachments there are, after somebody flushed them.
    ///
    /// # Errors
    /// What could not be made, of all attachments.
    pub fn repair_all(&self) -> Result<(), NetworkError> {
        let _going = self.collecting.read().unwrap_or_else(PoisonError::into_inner);
        let repair = |id: &AttachmentId| {
            let Some(known) = self.of(id).filter(|known| known.result.is_some()) else { return Ok(()) };
            self.with_list(&known, |chain| chain.repair(&self.subject(id, &known, false)))
        };
        // Where a plugin is at work, which may hang, the others do not wait for it.
        let (mut failures, mut busy) = (Vec::new(), Vec::new());
        for id in self.ids(|_| true) {
            match self.in_turn_if_free(&id, || repair(&id)) {
                Some(repaired) => failures.extend(repaired.err()),
                None => busy.push(id),
            }
        }
        failures.extend(busy.iter().filter_map(|id| self.in_turn(id, || repair(id)).err()));
        all(failures)
    }

    // --- One attachment, in its turn ---

    fn del_one(&self, id: &AttachmentId, namespace_ends: bool) -> Result<(), NetworkError> {
        self.in_turn(id, || match self.of(id) {
            Some(known) => self.take_back(id, &known, namespace_ends),
            None => Ok(()),
        })
    }

    /// DEL, and the end of the record.
    fn take_back(
        &self,
        id: &AttachmentId,
        known: &Attachment,
        namespace_ends: bool,
    ) -> Result<(), NetworkError> {
        self.with_list(known, |chain| chain.del(&self.subject(id, known, namespace_ends)))?;
        self.store.remove(id)?;
        // It is still the same turn: an ADD that follows in it has to be found by whoever interrupts it. With the turn
        // the rest goes.
        if let Some(known) = self.lock().get_mut(id) {
            known.attachment = None;
        }
        Ok(())
    }

    /// What is asked of the plugins, before they were.
    fn asked_for(&self, attach: &Attach<'_>, list: Arc<ConfigList>) -> Result<Attachment, NetworkError> {
        let failed = || NetworkError::io("look at the network namespace", attach.netns);
        let namespace = NamespaceId::of(attach.netns).map_err(failed())?;
        if namespace.is_own().map_err(failed())? {
            return Err(NetworkError::OwnNamespace { path: attach.netns.to_owned() });
        }
        Ok(Attachment {
            pod: attach.pod.key.to_string(),
            list: Some(list),
            netns: Some(attach.netns.to_owned()),
            namespace: Some(namespace),
            args: args(&attach.id(), Some(&attach.pod.key)),
            capabilities: attach.capabilities(&self.settings.default),
            result: None,
        })
    }

    fn subject<'a>(
        &self,
        id: &'a AttachmentId,
        attachment: &'a Attachment,
        namespace_ends: bool,
    ) -> Subject<'a> {
        Subject { id, attachment, netns: attachment.live_namespace(), namespace_ends }
    }

    /// Writes it, then remembers it.
    fn record(&self, id: &AttachmentId, attachment: &Attachment) -> Result<(), NetworkError> {
        self.store.write(id, attachment)?;
        self.lock().entry(id.clone()).or_default().attachment = Some(Arc::new(attachment.clone()));
        Ok(())
    }

    // --- Networks ---

    /// The network of pods that are attached now.
    fn network(&self) -> Result<Arc<ConfigList>, NetworkError> {
        match first_network(&self.settings.conf_dir)? {
            Some((_, list)) => Ok(self.lists.shared(Arc::new(list))),
            None => self.default_network(),
        }
    }

    fn default_network(&self) -> Result<Arc<ConfigList>, NetworkError> {
        let list = self.settings.default.list().map_err(|source| NetworkError::Default { source })?;
        Ok(self.lists.shared(Arc::new(list)))
    }

    /// Does it with the network of an attachment. Where it is not known, with that of now.
    fn with_list<T>(
        &self,
        attachment: &Attachment,
        act: impl FnOnce(&Chain<'_>) -> Result<T, NetworkError>,
    ) -> Result<T, NetworkError> {
        match &attachment.list {
            Some(list) => act(&self.chain(list)),
            None => act(&self.chain(self.network()?.as_ref())),
        }
    }

    fn chain<'a>(&'a self, list: &'a ConfigList) -> Chain<'a> {
        let deadline = Instant::now() + self.settings.deadline;
        Chain { plugins: self.plugins, list, path: &self.settings.bin_dirs, deadline }
    }

    // --- Memory ---

    fn is_unwanted(&self, id: &AttachmentId) -> bool {
        self.lock().get(id).is_some_and(|known| known.unwanted)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<AttachmentId, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, id: &AttachmentId) -> Option<Arc<Attachment>> {
        self.lock().get(id)?.attachment.clone()
    }

    fn ids(&self, wanted: impl Fn(&AttachmentId) -> bool) -> Vec<AttachmentId> {
        self.lock().keys().filter(|id| wanted(id)).cloned().collect()
    }
}

/// Nothing, or everything that went wrong.
fn all(mut failures: Vec<NetworkError>) -> Result<(), NetworkError> {
    match failures.len() {
        0 => Ok(()),
        1 => Err(failures.remove(0)),
        _ => Err(NetworkError::Several { errors: failures }),
    }
}
