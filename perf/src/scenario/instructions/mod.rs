//! Instructions a packet, counted by callgrind: the same on every run and every machine, so that growth is seen at once.

pub mod callgrind;
pub mod counted;
pub mod kept;

use std::path::Path;

use kept::Kept;

use super::{About, Scenario};
use crate::result::Measurement;
use crate::session::Session;
use crate::{Error, Result};

const NAME: &str = "instructions";

/// The scenario.
#[derive(Debug)]
pub struct Instructions;

impl Scenario for Instructions {
    fn about(&self) -> About {
        About {
            name: NAME,
            measures: "instructions a packet of the engine's worker under callgrind, for a fixed set; fails when one grew by \
                       more than 2 % over what perf/instructions.json keeps (--update keeps new ones), and with CI in the \
                       environment also when another compiler or profile built this",
            cases: "known-flow, new-flow, denied, ttl-expired (with an ICMP error), named as in engine: \
                    KIND/FAMILY/WAY[/syn][/flows-256]/rules-100/routes-100[/size-N][/batch-N]",
            sets: "",
            metrics: &[(
                "packet",
                "instructions: a turn of the worker, over the packets of its batch, with the copy into a frame",
            )],
            peers: "kept: what the repository keeps",
            root: false,
            cores: 1,
        }
    }

    fn run(&self, session: &mut Session) -> Result<()> {
        let kept = Kept::built_in()?;
        session.begin(NAME, 1);
        let counted = callgrind::count(session)?;
        let new = Kept::of(&counted);
        for (case, _) in &counted {
            if !session.wants(case) {
                continue;
            }
            let count = new.cases.get(case).copied().unwrap_or(0.0);
            let row = Measurement::of_rounds(NAME, case, "packet", "instructions", &[count]);
            let beside = kept.cases.get(case).copied();
            session.record(beside.into_iter().fold(row, |row, kept| row.beside("kept", kept)));
        }
        session.advance();
        if session.config.update {
            return update(session, &new);
        }
        let verdict = kept.judge(&new, std::env::var_os("CI").is_some());
        verdict.notes.into_iter().for_each(|note| session.note(note));
        if verdict.failed.is_empty() {
            return Ok(());
        }
        Err(Error::Regressed(verdict.failed.join("; ")))
    }
}

fn update(session: &mut Session, new: &Kept) -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    if cfg!(debug_assertions) {
        return Err(Error::Unmet("what is kept is of release builds: run --update with one".to_owned()));
    }
    new.write(folder)?;
    session.note(format!("{} is written: commit it with what changed", folder.join(kept::FILE).display()));
    Ok(())
}
