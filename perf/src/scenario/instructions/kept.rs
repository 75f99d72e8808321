//! The figures kept in the repository, and what is said of new ones beside them.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Where they are kept, seen from this crate's folder.
pub const FILE: &str = "instructions.json";
/// Growth beyond this fails; what shrank by more is worth keeping. In percent.
pub const BAND: f64 = 2.0;
/// What the arithmetic of percents may be off by.
const ROUNDING: f64 = 1e-9;

/// Instructions a packet by case, and what they were counted of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// What `rustc --version` says.
    pub rustc: String,
    /// `release` or `dev`.
    pub profile: String,
    /// Which body of the walk ran, [`vswitch::io::level`].
    pub level: String,
    /// Instructions a packet.
    pub cases: BTreeMap<String, f64>,
}

/// What this program was built with.
#[must_use]
pub fn build() -> (String, String) {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    (env!("RUSTC_VERSION").to_owned(), profile.to_owned())
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Verdict {
    /// What a person is told.
    pub notes: Vec<String>,
    /// Cases that grew too much, or are not kept at all.
    pub failed: Vec<String>,
}

impl Kept {
    /// Those this program was built with.
    ///
    /// # Errors
    ///
    /// [`Error::File`] when the file is not what it should be.
    pub fn built_in() -> Result<Self> {
        serde_json::from_str(include_str!("../../../instructions.json"))
            .map_err(|error| Error::File { file: FILE.into(), problem: error.to_string() })
    }

    /// Those of this build.
    #[must_use]
    pub fn of(counted: &[(String, f64)]) -> Self {
        let (rustc, profile) = build();
        // Whole ones: where the allocator and hash seeds put tables makes a hundredth of a packet's difference.
        let cases = counted.iter().map(|(name, count)| (name.clone(), count.round())).collect();
        Self { rustc, profile, level: vswitch::io::level().to_owned(), cases }
    }

    /// Writes them into the crate's folder.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn write(&self, folder: &Path) -> Result<()> {
        let file = folder.join(FILE);
        let failed = |error: std::io::Error| Error::File { file: file.clone(), problem: error.to_string() };
        let text = serde_json::to_string_pretty(self).map_err(|error| failed(error.into()))? + "\n";
        std::fs::write(&file, text).map_err(failed)
    }

    /// Compares `new` with these. What another compiler or profile built cannot be compared, which fails where all is to be
    /// checked (`strict`), and is said elsewhere. Nor can what ran on a processor of another level, which is said only: no
    /// update mends it.
    #[must_use]
    pub fn judge(&self, new: &Self, strict: bool) -> Verdict {
        let mut verdict = Verdict::default();
        if self.level != new.level {
            verdict.notes.push(format!(
                "instructions: NOT COMPARED: what is kept is of a processor of level {}, this is one of {}",
                self.level, new.level
            ));
            return verdict;
        }
        let same = (&self.rustc, &self.profile) == (&new.rustc, &new.profile);
        if !same {
            let said = format!(
                "NOT COMPARED: what is kept is of {} ({}), this is {} ({}); `vswitch-perf instructions --update` with a \
                 release build keeps these",
                self.rustc, self.profile, new.rustc, new.profile
            );
            if strict {
                verdict.failed.push(said);
            } else {
                verdict.notes.push(format!("instructions: {said}"));
            }
        }
        for (case, count) in &new.cases {
            let Some(kept) = self.cases.get(case) else {
                if same {
                    verdict.failed.push(format!("{case} is not kept yet (now {count}): --update keeps it"));
                }
                continue;
            };
            let grown = (count / kept - 1.0) * 100.0;
            let line = format!("{case} went from {kept} to {count} ({grown:+.1} %)");
            if grown > BAND + ROUNDING && same {
                verdict.failed.push(line);
            } else if grown < -(BAND + ROUNDING) && same {
                verdict.notes.push(format!("instructions: {line}: --update keeps it"));
            }
        }
        for case in self.cases.keys().filter(|case| same && !new.cases.contains_key(*case)) {
            verdict.failed.push(format!("{case} is kept but was not counted"));
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(cases: &[(&str, f64)]) -> Kept {
        let cases: Vec<_> = cases.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        Kept { rustc: "rustc 1".to_owned(), profile: "release".to_owned(), ..Kept::of(&cases) }
    }

    #[test]
    fn growth_beyond_two_percent_fails_and_shrinking_is_said() {
        let verdict = kept(&[("a", 1000.0), ("b", 1000.0), ("c", 1000.0), ("d", 1000.0)])
            .judge(&kept(&[("a", 1020.0), ("b", 1021.0), ("c", 979.0), ("d", 980.0)]), true);
        assert_eq!(verdict.failed, ["b went from 1000 to 1021 (+2.1 %)"]);
        assert_eq!(verdict.notes, ["instructions: c went from 1000 to 979 (-2.1 %): --update keeps it"]);
    }

    #[test]
    fn a_case_on_one_side_only_fails() {
        let verdict = kept(&[("gone", 1.0)]).judge(&kept(&[("new", 1.0)]), false);
        assert_eq!(verdict.failed.len(), 2, "{verdict:?}");
    }

    #[test]
    fn another_compiler_is_said_loudly_and_fails_where_all_is_checked() {
        let other = Kept { rustc: "rustc 2".to_owned(), ..kept(&[("a", 200.0)]) };
        let verdict = kept(&[("a", 100.0)]).judge(&other, false);
        assert!(verdict.failed.is_empty() && verdict.notes.len() == 1, "{verdict:?}");
        assert!(verdict.notes[0].contains("NOT COMPARED"), "{verdict:?}");
        let verdict = kept(&[("a", 100.0)]).judge(&other, true);
        assert!(verdict.notes.is_empty() && verdict.failed.len() == 1, "{verdict:?}");
        assert!(
            verdict.failed[0].contains("rustc 2") && verdict.failed[0].contains("--update"),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_processor_of_another_level_is_said_and_fails_nothing() {
        let other = Kept { level: "portable".to_owned(), ..kept(&[("a", 200.0)]) };
        let verdict = Kept { level: "x86-64-v3".to_owned(), ..kept(&[("a", 100.0)]) }.judge(&other, true);
        assert!(verdict.failed.is_empty() && verdict.notes[0].contains("NOT COMPARED"), "{verdict:?}");
    }

    #[test]
    fn what_is_kept_is_read_and_is_of_the_cases_there_are() {
        let names: Vec<_> = super::super::counted::cases().into_iter().map(|case| case.name).collect();
        let kept = Kept::built_in().unwrap();
        assert!(kept.cases.keys().all(|case| names.contains(case)) && kept.cases.len() == names.len());
        assert!(kept.profile == "release" && kept.cases.values().all(|count| *count > 10.0));
        let folder = tempfile::tempdir().unwrap();
        kept.write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join(FILE)).unwrap();
        assert_eq!(serde_json::from_str::<Kept>(&text).unwrap(), kept);
    }
}
