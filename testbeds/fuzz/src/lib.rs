//! What fuzz targets share.

use std::path::PathBuf;

/// Writes a first input into the corpus, which is the first argument of a target that is no option. Targets do so before
/// they begin, so that a fresh clone does not start from nothing.
pub fn seed(name: &str, bytes: &[u8]) {
    let corpus = std::env::args_os().skip(1).find(|argument| !argument.to_string_lossy().starts_with('-'));
    if let Some(folder) = corpus.map(PathBuf::from).filter(|folder| folder.is_dir()) {
        std::fs::write(folder.join(format!("seed-{name}")), bytes).expect("the corpus can be written");
    }
}
