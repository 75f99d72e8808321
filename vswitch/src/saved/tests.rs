use super::form::{decode, encode};
use super::*;
use crate::testing::{add_pod, empty_node, one_pod};

fn file() -> (tempfile::TempDir, StateFile) {
    let directory = tempfile::tempdir().unwrap();
    let file = StateFile::new(directory.path().join("engine.state"));
    (directory, file)
}

/// What a start finds.
fn found(directory: &tempfile::TempDir) -> Option<(Generation, DesiredState)> {
    StateFile::new(directory.path().join("engine.state")).load().unwrap()
}

/// Nodes with 1, 2, ... pods, and what leads from each to the next; generations count from 1.
fn growing(count: u8) -> (Vec<DesiredState>, Vec<Delta>) {
    let mut states = vec![empty_node()];
    for pod in 1..=count {
        let mut next = states[states.len() - 1].clone();
        add_pod(&mut next, &format!("pod-{pod}"), &[&format!("10.1.0.{pod}")]);
        states.push(next);
    }
    let deltas = (1..)
        .zip(states.windows(2))
        .map(|(base, pair)| Delta { base: Generation(base), changes: pair[0].changes_to(&pair[1]) });
    let deltas = deltas.collect();
    (states, deltas)
}

/// A file with a journal of `count` changes.
fn journal_of(count: u8) -> (tempfile::TempDir, StateFile, Vec<DesiredState>) {
    let (directory, mut file) = file();
    let (states, deltas) = growing(count);
    file.save(Generation(1), &states[0]).unwrap();
    for delta in deltas {
        assert!(file.append(Generation(delta.base.0 + 1), delta).unwrap());
    }
    (directory, file, states)
}

#[test]
fn what_was_saved_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let mut file = StateFile::new(directory.path().join("deep/engine.state"));
    assert!(file.load().unwrap().is_none());
    for generation in [7, 8] {
        file.save(Generation(generation), &one_pod()).unwrap();
        assert_eq!(file.load().unwrap(), Some((Generation(generation), one_pod())));
    }
    let left: Vec<_> = fs::read_dir(directory.path().join("deep")).unwrap().collect();
    assert_eq!(left.len(), 1, "nothing is left beside it");
}

#[test]
fn any_damage_is_noticed_and_the_file_can_be_set_aside() {
    let (directory, mut file) = file();
    let whole = encode(Generation(7), &one_pod());
    for length in 0..whole.len() {
        assert!(decode(&whole[..length]).is_err(), "cut to {length}");
    }
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x20;
        assert!(decode(&altered).is_err(), "altered at {at}");
    }
    fs::write(directory.path().join("engine.state"), b"junk").unwrap();
    let error = file.load().unwrap_err().to_string();
    assert!(error.ends_with("is damaged: 4 bytes are less than its header"), "{error}");
    let aside = file.set_aside().unwrap();
    assert_eq!(fs::read(aside).unwrap(), b"junk");
    assert!(file.load().unwrap().is_none());
}

#[test]
fn a_save_that_fails_leaves_the_old_one() {
    let (directory, mut file) = file();
    file.save(Generation(7), &one_pod()).unwrap();
    // A directory where the new file would be written: the write fails whoever we are.
    fs::create_dir(directory.path().join("engine.state.new")).unwrap();
    let error = file.save(Generation(8), &one_pod()).unwrap_err().to_string();
    assert!(error.contains("cannot write it"), "{error}");
    assert_eq!(file.load().unwrap().map(|(generation, _)| generation), Some(Generation(7)));
}

#[test]
fn changes_are_added_and_read_back_after_a_start_too() {
    let (directory, _, states) = journal_of(5);
    assert_eq!(found(&directory), Some((Generation(6), states[5].clone())));
    let mut file = StateFile::new(directory.path().join("engine.state"));
    file.load().unwrap();
    let (more, deltas) = growing(6);
    assert!(file.append(Generation(7), deltas[5].clone()).unwrap());
    assert_eq!(found(&directory), Some((Generation(7), more[6].clone())));
    // A journal that was not removed when the whole state was saved.
    let path = directory.path().join("engine.state.journal");
    let old = fs::read(&path).unwrap();
    file.save(Generation(8), &one_pod()).unwrap();
    assert!(!path.exists());
    fs::write(&path, old).unwrap();
    assert_eq!(found(&directory), Some((Generation(8), one_pod())));
}

#[test]
fn what_was_not_written_to_its_end_is_cut_off() {
    let (directory, _, states) = journal_of(2);
    let path = directory.path().join("engine.state.journal");
    let whole = fs::read(&path).unwrap();
    let one = {
        let (directory, ..) = journal_of(1);
        fs::read(directory.path().join("engine.state.journal")).unwrap().len()
    };
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        let (generation, expected) = if length < one { (1, 0) } else { (2, 1) };
        assert_eq!(found(&directory), Some((Generation(generation), states[expected].clone())), "{length}");
    }
    // Sparse blocks, as a crash may leave them; and what follows is added in their place.
    fs::write(&path, [&whole[..one], &[0; 100]].concat()).unwrap();
    let mut file = StateFile::new(directory.path().join("engine.state"));
    assert_eq!(file.load().unwrap().map(|(generation, _)| generation), Some(Generation(2)));
    let (_, deltas) = growing(2);
    assert!(file.append(Generation(3), deltas[1].clone()).unwrap());
    assert_eq!(fs::read(&path).unwrap(), whole);
}

#[test]
fn a_change_that_is_wrong_before_others_is_damage() {
    let (directory, mut file, _) = journal_of(2);
    let path = directory.path().join("engine.state.journal");
    let whole = fs::read(&path).unwrap();
    let one = {
        let (directory, ..) = journal_of(1);
        fs::read(directory.path().join("engine.state.journal")).unwrap().len()
    };
    // Past the length of the first change: with a longer one nothing would be behind it.
    for at in (0..24).chain(28..one) {
        let mut altered = whole.clone();
        altered[at] ^= 0x20;
        fs::write(&path, altered).unwrap();
        assert!(matches!(file.load(), Err(SavedError::Damaged { .. })), "altered at {at}");
    }
    let twice = [&whole[..], &whole[one..]].concat();
    fs::write(&path, twice).unwrap();
    let error = file.load().unwrap_err().to_string();
    assert!(error.ends_with("is damaged: a change from generation 2 follows generation 3"), "{error}");
    file.set_aside().unwrap();
    assert!(found(&directory).is_none() && directory.path().join("engine.state.journal.damaged").exists());
}

#[test]
fn a_whole_state_is_due_when_the_journal_is_longer_or_failed() {
    let (directory, mut file) = file();
    let (states, deltas) = growing(1);
    assert!(!file.append(Generation(2), deltas[0].clone()).unwrap(), "there is nothing to add to");
    file.save(Generation(1), &states[0]).unwrap();
    // The same change again and again, as far as the file is concerned.
    let steps = (1..100_000u64).take_while(|base| {
        let delta = Delta { base: Generation(*base), changes: deltas[0].changes.clone() };
        file.append(Generation(base + 1), delta).unwrap()
    });
    let steps = steps.count() as u64;
    let length = fs::metadata(directory.path().join("engine.state.journal")).unwrap().len();
    assert!(length > JOURNAL_MIN && length < JOURNAL_MIN + 1000, "{length}");
    assert_eq!(found(&directory), Some((Generation(steps + 1), states[1].clone())));

    fs::remove_file(directory.path().join("engine.state.journal")).unwrap();
    fs::create_dir(directory.path().join("engine.state.journal")).unwrap();
    file.save(Generation(9), &states[0]).unwrap();
    let delta = Delta { base: Generation(9), ..deltas[0].clone() };
    assert!(file.append(Generation(10), delta.clone()).is_err());
    assert!(!file.append(Generation(10), delta).unwrap(), "it is not known what is on disk");
    assert!(StateFile::new(directory.path().join("engine.state")).load().is_err(), "no file is there");
}
