//! Manifests, from files, folders and standard input.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use vswitch_model::api::agent::Document;

use super::Failure;

/// What a folder's manifests are called.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The documents at these paths, in their order; a folder's files in the order of their names.
pub(super) fn read(paths: &[String]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for path in paths {
        if path == "-" {
            let mut text = String::new();
            std::io::stdin()
                .read_to_string(&mut text)
                .map_err(|error| Failure(format!("standard input: {error}")))?;
            documents.push(Document { file: "-".to_owned(), text });
            continue;
        }
        for file in files(Path::new(path))? {
            let text =
                fs::read_to_string(&file).map_err(|error| Failure(format!("{}: {error}", file.display())))?;
            documents.push(Document { file: file.display().to_string(), text });
        }
    }
    Ok(documents)
}

fn files(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure(format!("{}: {error}", path.display()));
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Result<Vec<_>, _> =
        fs::read_dir(path).map_err(failed)?.map(|entry| entry.map(|e| e.path())).collect();
    let mut files = entries.map_err(failed)?;
    files.retain(|file| {
        file.is_file() && file.extension().is_some_and(|ext| EXTENSIONS.iter().any(|known| ext == *known))
    });
    files.sort();
    if files.is_empty() {
        return Err(Failure(format!(
            "{}: no file in it ends in .{}",
            path.display(),
            EXTENSIONS.join(", .")
        )));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_manifests_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [("b.yml", "b"), ("a.yaml", "a"), ("c.json", "c"), ("notes.txt", "no")] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        fs::create_dir(folder.path().join("sub.yaml")).unwrap();
        let path = folder.path().display().to_string();
        let documents = read(std::slice::from_ref(&path)).unwrap();
        let texts: Vec<_> = documents.iter().map(|document| document.text.as_str()).collect();
        assert_eq!(texts, ["a", "b", "c"]);
        assert!(documents[0].file.ends_with("/a.yaml"));
        // Named outright, a file may be called anything.
        assert_eq!(read(&[format!("{path}/notes.txt")]).unwrap()[0].text, "no");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().display().to_string();
        assert!(read(std::slice::from_ref(&path)).unwrap_err().0.starts_with(&path));
        let missing = format!("{path}/missing.yaml");
        assert!(read(std::slice::from_ref(&missing)).unwrap_err().0.starts_with(&missing));
    }
}
