//! A run: what one use of the testbed has made on this machine, kept in a file so that it can be taken away even
//! after a crash.
//!
//! Every run has an id; its namespaces are called `vsw-ID-…` and its files are in a folder of its own. What is made is
//! noted before it is used. Taking a run down ends only processes that are noted, or that run inside its namespaces.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::AtPath;
use crate::netns::Netns;
use crate::process::ProcessId;
use crate::{Error, Result};

/// Where runs keep their files.
const ROOT: &str = "/run/vswitch-testbed";
/// How long a process may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a run has made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Made {
    namespaces: Vec<String>,
    processes: Vec<ProcessId>,
}

/// A run.
#[derive(Debug)]
pub struct Run {
    id: String,
    folder: PathBuf,
    made: Made,
    /// Held for as long as the process that began it uses it.
    _lock: File,
}

impl Run {
    /// Begins a run; what an earlier one of the same id left is taken away first. An error when the id is in use.
    pub fn begin(id: &str) -> Result<Self> {
        let lock = Self::lock(id)?;
        take_away(id)?;
        let folder = Path::new(ROOT).join(id);
        std::fs::create_dir_all(&folder).at(&folder)?;
        let run = Self { id: id.to_owned(), folder, made: Made::default(), _lock: lock };
        run.save()?;
        Ok(run)
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where its files are.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A file of the run.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of the run and gives its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.file(name);
        std::fs::write(&path, text).at(&path)?;
        Ok(path)
    }

    /// Makes a namespace of the run.
    pub fn netns(&mut self, name: &str) -> Result<Netns> {
        let netns = Netns::named(format!("{}{name}", prefix(&self.id)));
        self.made.namespaces.push(netns.name().to_owned());
        self.save()?;
        netns.create()?;
        Ok(netns)
    }

    /// Removes a namespace of the run before its end.
    pub fn remove_netns(&mut self, netns: &Netns) -> Result<()> {
        netns.remove()?;
        self.made.namespaces.retain(|name| name != netns.name());
        self.save()
    }

    /// Notes a process, to be ended with the run.
    pub fn note(&mut self, process: Option<ProcessId>) -> Result<()> {
        self.made.processes.retain(ProcessId::runs);
        self.made.processes.extend(process);
        self.save()
    }

    /// Takes away all that this run has made, its files included.
    pub fn end(&mut self) -> Result<()> {
        self.made = Made::default();
        take_away(&self.id)
    }

    /// The same for the run of this id, whoever began it. Not an error when there is nothing; an error when the
    /// process that began it still uses it.
    pub fn down(id: &str) -> Result<()> {
        let _lock = Self::lock(id)?;
        take_away(id)
    }

    /// Whether something of the run of this id is there: a process or a namespace.
    pub fn stands(id: &str) -> Result<bool> {
        let runs = made(id)?.processes.iter().any(ProcessId::runs);
        Ok(runs || Netns::all()?.iter().any(|name| name.starts_with(&prefix(id))))
    }

    /// The same in a process that holds the run itself and is about to end.
    pub fn abandon(id: &str) -> Result<()> {
        take_away(id)
    }

    /// Ids of all runs of which something is left.
    pub fn all() -> Result<Vec<String>> {
        let entries = match std::fs::read_dir(ROOT) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error).at(ROOT),
        };
        let folders = entries.filter_map(std::result::Result::ok).filter(|entry| entry.path().is_dir());
        let mut ids: Vec<_> = folders.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        ids.sort_unstable();
        Ok(ids)
    }

    fn save(&self) -> Result<()> {
        let path = self.file("state.json");
        let text = serde_json::to_string(&self.made).expect("plain data");
        let new = self.file("state.json.new");
        std::fs::write(&new, text).at(&new)?;
        std::fs::rename(&new, &path).at(path)
    }

    /// The right to touch what belongs to this id. The kernel releases it with the process that holds it.
    fn lock(id: &str) -> Result<File> {
        std::fs::create_dir_all(ROOT).at(ROOT)?;
        let path = Path::new(ROOT).join(format!("{id}.lock"));
        let file = File::create(&path).at(&path)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Error::other(format!(
                "the testbed run {id:?} is in use by another process ({})",
                path.display()
            ))),
            Err(TryLockError::Error(error)) => Err(error).at(path),
        }
    }
}

/// What the run of this id has made, as far as it came to write it down.
fn made(id: &str) -> Result<Made> {
    let state = Path::new(ROOT).join(id).join("state.json");
    match std::fs::read(&state) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| Error::other(format!("{}: {error}", state.display()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Made::default()),
        Err(error) => Err(error).at(&state),
    }
}

fn take_away(id: &str) -> Result<()> {
    let folder = Path::new(ROOT).join(id);
    let made = made(id)?;
    let mut names = made.namespaces;
    names.extend(Netns::all()?.into_iter().filter(|name| name.starts_with(&prefix(id))));
    names.sort_unstable();
    names.dedup();
    let namespaces: Vec<_> = names.into_iter().map(Netns::named).filter(|n| n.path().exists()).collect();
    // Last started, first ended.
    for process in made.processes.iter().rev() {
        process.end(PATIENCE);
    }
    for netns in &namespaces {
        for process in netns.processes()?.into_iter().filter_map(ProcessId::of) {
            process.end(PATIENCE);
        }
    }
    for netns in &namespaces {
        netns.remove()?;
    }
    match std::fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(folder),
        _ => Ok(()),
    }
}

/// Takes the one place there is for a whole bed on this machine, waiting for whoever holds it: scenario tests measure,
/// and two at once would disturb each other. It is given back when the value goes.
pub fn exclusive() -> Result<File> {
    std::fs::create_dir_all(ROOT).at(ROOT)?;
    let path = Path::new(ROOT).join("exclusive.lock");
    let file = File::create(&path).at(&path)?;
    if file.try_lock().is_err() {
        eprintln!("testbed: waiting for another run on this machine to end");
        file.lock().at(&path)?;
    }
    Ok(file)
}

fn prefix(id: &str) -> String {
    format!("vsw-{id}-")
}
