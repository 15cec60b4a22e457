//! The running config as text: the file's, with the patches over it.
//!
//! Reading, merging and checking a large config takes its time. It is done in a thread of its own, at low priority, so
//! that neither the control loop nor a worker on the same core feels it.

use crate::config::answer::{Code, Error};
use crate::config::patch::{self, Patch};
use crate::config::{Plan, check, receipt};
use crate::limits;
use crate::worker::net::machine;
use crossbeam_channel::{Receiver, bounded};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far the check of a config steps back (nice): on a core that is busy with a worker it gets about a tenth.
const PRIORITY: i32 = 10;

/// What runs, as text.
#[derive(Clone, Debug)]
pub struct Running {
    file: PathBuf,
    base: Arc<str>,
    patches: Vec<Applied>,
    text: Arc<str>,
    hash: String,
}

/// A patch and where it came from.
#[derive(Clone, Debug)]
pub struct Applied {
    /// What it says.
    pub patch: Arc<Patch>,
    /// By whom.
    pub who: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What is to run.
#[derive(Clone, Debug)]
pub(super) enum Wanted {
    /// A file, with the patches over it or without.
    File { file: PathBuf, content: Option<String>, drop_patches: bool },
    /// One patch more; `file` names it in faults.
    Patch { text: String, file: String, who: String, at: u64 },
}

/// What a config is checked against.
#[derive(Clone, Copy, Debug)]
pub(super) struct Machine {
    /// Workers that run.
    pub cores: usize,
    /// The limit of open files.
    pub open_files_max: u64,
}

/// A faultless config, as text and as a plan.
pub(super) type Checked = (Running, Plan);

impl Running {
    /// A file's text as it is.
    pub fn new(file: PathBuf, text: String) -> Running {
        let text: Arc<str> = text.into();
        Running { file, base: text.clone(), patches: Vec::new(), hash: hash(&text), text }
    }

    /// The same file under these patches.
    ///
    /// # Errors
    /// The file's text is not JSON.
    pub fn patched(&self, patches: Vec<Applied>) -> Result<Running, serde_json::Error> {
        let text: Arc<str> = patch::merged(&self.base, patches.iter().map(|p| &*p.patch))?.into();
        Ok(Running { file: self.file.clone(), base: self.base.clone(), patches, hash: hash(&text), text })
    }

    /// With the patches of an earlier process; `None` if there are none.
    ///
    /// # Errors
    /// They no longer fit.
    pub(super) fn recalled(&self, patches: Vec<receipt::Applied>, machine: Machine) -> Result<Option<Checked>, String> {
        if patches.is_empty() {
            return Ok(None);
        }
        let mut applied = Vec::with_capacity(patches.len());
        for receipt::Applied { at, who, patch } in patches {
            let patch = Patch::parse(&patch, "state file").map_err(|faults| faults.to_string())?;
            applied.push(Applied { patch: Arc::new(patch), who, at });
        }
        let running = self.patched(applied).map_err(|e| e.to_string())?;
        let shown = running.file.to_string_lossy();
        let plan = check::load_for(&running.text, &shown, machine.cores, machine.open_files_max)
            .map_err(|faults| faults.to_string())?;
        Ok(Some((running, plan)))
    }

    /// The file that it began with.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What lies over the file, the oldest first.
    pub fn patches(&self) -> &[Applied] {
        &self.patches
    }

    /// SHA-256 of the text, in hex.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// For the answer to `config`.
    pub fn told(&self, generation: u64) -> receipt::Running {
        receipt::Running {
            generation,
            file: self.file.display().to_string(),
            hash: self.hash.clone(),
            text: self.text.to_string(),
            patches: self
                .patches
                .iter()
                .map(|p| receipt::Applied { at: p.at, who: p.who.clone(), patch: p.patch.text().to_owned() })
                .collect(),
        }
    }

    /// What would run, checked.
    pub(super) fn with(&self, wanted: Wanted, machine: Machine) -> Result<Checked, Error> {
        match wanted {
            Wanted::File { file, content, drop_patches } => {
                let text = match content {
                    Some(text) => text,
                    None => read_config(&file).map_err(|why| Error::new(Code::Failed, why))?,
                };
                let alone = Running::new(file, text);
                // Faults of the file are told at their places in it.
                let plan = alone.check(machine)?;
                if drop_patches || self.patches.is_empty() {
                    return Ok((alone, plan));
                }
                let both = alone.patched(self.patches.clone()).map_err(garbled)?;
                let plan = both.check(machine).map_err(|error| Error {
                    message: format!(
                        "the file is good, but with the {} patch(es) that were applied before it is not: {}; \
                         \"reload --drop-patches\" forgets them",
                        self.patches.len(),
                        error.message
                    ),
                    ..error
                })?;
                Ok((both, plan))
            }
            Wanted::Patch { text, file, who, at } => {
                let patch = Arc::new(Patch::parse(&text, &file)?);
                let mut patches = self.fewer_patches().map_err(garbled)?;
                patches.push(Applied { patch: patch.clone(), who, at });
                let next = self.patched(patches).map_err(garbled)?;
                let shown = next.file.to_string_lossy();
                let plan = check::load_for(&next.text, &shown, machine.cores, machine.open_files_max)
                    .map_err(|faults| patch.relocate(faults, &file))?;
                Ok((next, plan))
            }
        }
    }

    /// The patches, the older half taken together where there are many.
    fn fewer_patches(&self) -> Result<Vec<Applied>, serde_json::Error> {
        let mut patches = self.patches.clone();
        if patches.len() >= limits::PATCHES_MAX {
            let old: Vec<Applied> = patches.drain(..limits::PATCHES_MAX / 2).collect();
            let together = Patch::together(&self.base, old.iter().map(|p| &*p.patch))?;
            let at = old.last().map_or(0, |p| p.at);
            patches.insert(0, Applied { patch: Arc::new(together), who: "several, taken together".to_owned(), at });
        }
        Ok(patches)
    }

    fn check(&self, machine: Machine) -> Result<Plan, Error> {
        let shown = self.file.to_string_lossy();
        Ok(check::load_for(&self.text, &shown, machine.cores, machine.open_files_max)?)
    }
}

/// Works something out in a thread of its own; `ring` is called when it is there.
///
/// # Errors
/// No thread to be had.
pub(super) fn work_out<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    ring: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<Receiver<T>> {
    let (sender, receiver) = bounded(1);
    std::thread::Builder::new().name("ringway-config".into()).spawn(move || {
        machine::step_back(PRIORITY);
        // Whoever wanted it may have given up.
        let _ = sender.send(work());
        ring();
    })?;
    Ok(receiver)
}

fn garbled(error: serde_json::Error) -> Error {
    Error::new(Code::Failed, format!("the running config cannot be patched: {error}"))
}

fn hash(text: &str) -> String {
    hmac_sha256::Hash::hash(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The config file's text.
///
/// # Errors
/// A sentence with the file's name.
pub fn read_config(path: &Path) -> Result<String, String> {
    let read = || {
        let mut text = String::new();
        File::open(path)?.take(limits::CONFIG_BYTES_MAX as u64 + 1).read_to_string(&mut text)?;
        Ok(text)
    };
    match read() {
        Ok(text) if text.len() > limits::CONFIG_BYTES_MAX => {
            Err(format!("{}: larger than {} bytes", path.display(), limits::CONFIG_BYTES_MAX))
        }
        Ok(text) => Ok(text),
        Err::<_, std::io::Error>(e) => Err(format!("{}: {e}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine { cores: 2, open_files_max: 10_000 };

    fn running() -> Running {
        let text = r#"{"listeners": {"a": "127.0.0.1:1"}, "clusters": {"c": {"backends": {}}}, "routes": {"*": "c"}}"#;
        Running::new("c.json".into(), text.into())
    }

    fn apply(to: &Running, text: &str) -> Result<Checked, Error> {
        to.with(Wanted::Patch { text: text.into(), file: "p".into(), who: "me".into(), at: 7 }, MACHINE)
    }

    #[test]
    fn the_hash_is_that_of_the_file() {
        // printf abc | sha256sum
        assert_eq!(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(running().hash(), hash(running().text()));
    }

    #[test]
    fn patches_lie_over_the_file_until_they_are_dropped() {
        let (one, plan) = apply(&running(), r#"{"clusters": {"d": {"backends": {}}}}"#).unwrap();
        assert_eq!((plan.clusters.len(), one.patches().len()), (2, 1));
        let (two, plan) = apply(&one, r#"{"routes": {"d.example": "d"}}"#).unwrap();
        assert_eq!((plan.routes.len(), two.told(3).patches.len()), (2, 2));
        let file =
            |drop_patches| Wanted::File { file: "c.json".into(), content: Some(running().text().into()), drop_patches };
        assert_eq!(two.with(file(false), MACHINE).unwrap().1.routes.len(), 2);
        let (dropped, plan) = two.with(file(true), MACHINE).unwrap();
        assert_eq!((plan.routes.len(), dropped.patches().len(), dropped.text()), (1, 0, running().text()));
    }

    #[test]
    fn many_patches_are_taken_together() {
        let mut now = running();
        for i in 0..3 * limits::PATCHES_MAX {
            now = apply(&now, &format!(r#"{{"routes": {{"h{i}.example": "c"}}}}"#)).unwrap().0;
            assert!(now.patches().len() <= limits::PATCHES_MAX);
        }
        let value: serde_json::Value = serde_json::from_str(now.text()).unwrap();
        assert_eq!(value["routes"].as_object().unwrap().len(), 3 * limits::PATCHES_MAX + 1);
    }

    #[test]
    fn a_bad_patch_is_told_at_its_places() {
        let error = apply(&running(), "{\n\"routes\": {\"x\": \"nowhere\"}}").unwrap_err();
        assert_eq!((error.code, error.line), (Code::BadConfig, Some(2)), "{}", error.message);
        assert!(apply(&running(), "[]").is_err());
    }

    #[test]
    fn a_file_that_its_patches_no_longer_fit_is_refused_and_says_how_to_go_on() {
        let (one, _) = apply(&running(), r#"{"routes": {"d.example": "c"}}"#).unwrap();
        let text = r#"{"listeners": {"a": "127.0.0.1:1"}, "clusters": {"e": {"backends": {}}}, "routes": {"*": "e"}}"#;
        let wanted = Wanted::File { file: "c.json".into(), content: Some(text.into()), drop_patches: false };
        let error = one.with(wanted, MACHINE).unwrap_err();
        assert!(error.message.contains("--drop-patches"), "{}", error.message);
    }
}
