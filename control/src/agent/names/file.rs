//! Keeps what is known of names from one run of the agent to the next.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::table::Kept;

/// What was kept: nothing when there is no file.
///
/// # Errors
/// What is wrong with the file, for people.
pub(super) fn read(file: &Path) -> Result<Vec<Kept>, String> {
    match fs::read(file) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| format!("{}: {error}", file.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("{}: {error}", file.display())),
    }
}

/// Replaces the file as a whole. It need not outlive the machine: without flows nothing in it is missed.
///
/// # Errors
/// Why it cannot be written, for people.
pub(super) fn write(file: &Path, kept: &[Kept]) -> Result<(), String> {
    let written = || {
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        let beside = file.with_extension("new");
        fs::write(&beside, serde_json::to_vec(kept)?)?;
        fs::rename(&beside, file)
    };
    written().map_err(|error: std::io::Error| format!("{} cannot be written: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("in/names.json");
        assert_eq!(read(&file), Ok(Vec::new()));
        let kept = vec![Kept {
            name: "a.example.org".into(),
            address: "203.0.113.7".parse().unwrap(),
            expires_ms: 7,
            server: "::1".parse().unwrap(),
        }];
        write(&file, &kept).unwrap();
        assert_eq!(read(&file), Ok(kept));
        fs::write(&file, "[{").unwrap();
        assert!(read(&file).unwrap_err().starts_with(&format!("{}: ", file.display())));
    }
}
