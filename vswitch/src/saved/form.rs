//! What the bytes on disk are.
//!
//! ```text
//! file     | magic 8 | checksum 8, over what follows | generation 8 | protobuf DesiredState |
//! journal  | magic 8 | checksum 8 of the file it belongs to | checksum 8, over that | records |
//! record   | length 4, of what follows the checksum | checksum 8, over the length and that | generation 8 | protobuf Delta |
//! ```
//!
//! Integers are little-endian. A journal that belongs to another file is left from before that was written, and of no
//! meaning.

use prost::Message;
use vswitch_model::api::engine as pb;
use vswitch_model::{Delta, DesiredState, Generation};

/// Names the kind of file and the version of its form.
const MAGIC: &[u8; 8] = b"vswstat1";
const JOURNAL_MAGIC: &[u8; 8] = b"vswjour1";
const HEADER: usize = 24;
const JOURNAL_HEADER: usize = 24;
const RECORD_HEADER: usize = 12;

/// A whole state.
pub(super) fn encode(generation: Generation, state: &DesiredState) -> Vec<u8> {
    let body = pb::DesiredState::from(state.clone());
    let mut bytes = Vec::with_capacity(HEADER + body.encoded_len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    body.encode(&mut bytes).expect("a vector grows as needed");
    let sum = checksum(&[&bytes[16..]]).to_le_bytes();
    bytes[8..16].copy_from_slice(&sum);
    bytes
}

/// The checksum that the bytes of a file name.
pub(super) fn sum_of(bytes: &[u8]) -> u64 {
    word(bytes, 8).unwrap_or_default()
}

pub(super) fn decode(bytes: &[u8]) -> Result<(Generation, DesiredState), String> {
    let Some((header, body)) = bytes.split_at_checked(HEADER) else {
        return Err(format!("{} bytes are less than its header", bytes.len()));
    };
    if &header[..8] != MAGIC {
        return Err("it does not start as a state file of this version does".to_owned());
    }
    if sum_of(bytes) != checksum(&[&bytes[16..]]) {
        return Err("its checksum is wrong".to_owned());
    }
    let message = pb::DesiredState::decode(body).map_err(|error| error.to_string())?;
    let state = DesiredState::try_from(message).map_err(|invalid| invalid.to_string())?;
    state.check().map_err(|invalid| invalid.to_string())?;
    Ok((Generation(word(header, 16).unwrap_or_default()), state))
}

pub(super) fn journal_header(base: u64) -> [u8; JOURNAL_HEADER] {
    let mut header = [0; JOURNAL_HEADER];
    header[..8].copy_from_slice(JOURNAL_MAGIC);
    header[8..16].copy_from_slice(&base.to_le_bytes());
    let sum = checksum(&[&base.to_le_bytes()]);
    header[16..].copy_from_slice(&sum.to_le_bytes());
    header
}

/// A change that leads to `generation`.
pub(super) fn record(generation: Generation, delta: Delta) -> Vec<u8> {
    let body = pb::Delta::from(delta);
    let length = 8 + body.encoded_len();
    let mut bytes = Vec::with_capacity(RECORD_HEADER + length);
    // A message of the API is far shorter than 4 GiB.
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&generation.0.to_le_bytes());
    body.encode(&mut bytes).expect("a vector grows as needed");
    let sum = checksum(&[&bytes[..4], &bytes[RECORD_HEADER..]]).to_le_bytes();
    bytes[4..RECORD_HEADER].copy_from_slice(&sum);
    bytes
}

/// Where a journal leads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Read {
    pub(super) generation: Generation,
    /// Bytes that are whole; None: it belongs to another file, or was not begun.
    pub(super) length: Option<u64>,
}

/// Leads `state`, of the file of checksum `base`, to where the journal does. A record that was not written to its end is
/// the last of all; what is behind one that is wrong would be lost, so that is damage.
pub(super) fn read_journal(
    bytes: &[u8],
    base: u64,
    mut generation: Generation,
    state: &mut DesiredState,
) -> Result<Read, String> {
    let other = Read { generation, length: None };
    let Some(header) = bytes.get(..JOURNAL_HEADER) else { return Ok(other) };
    let named = word(header, 8).unwrap_or_default();
    if header != journal_header(named) {
        let begun = is_zero(bytes);
        return if begun { Ok(other) } else { Err("its header is wrong".to_owned()) };
    }
    if named != base {
        return Ok(other);
    }
    let mut at = JOURNAL_HEADER;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let Some(record) = whole_record(rest) else {
            if is_last(rest) {
                tracing::warn!(
                    bytes = rest.len(),
                    "the journal's last change was not written to its end; it is left out"
                );
                break;
            }
            return Err(format!("the checksum of the change at byte {at} is wrong"));
        };
        generation = follow(record, generation, state)?;
        at += RECORD_HEADER + record.len();
    }
    Ok(Read { generation, length: Some(at as u64) })
}

/// What is behind the header of the record that `bytes` begin with.
fn whole_record(bytes: &[u8]) -> Option<&[u8]> {
    let length = claimed_length(bytes)?;
    let record = bytes.get(RECORD_HEADER..RECORD_HEADER.checked_add(length)?)?;
    let whole = word(bytes, 4)? == checksum(&[&bytes[..4], record]);
    (whole && record.len() >= 8).then_some(record)
}

/// Whether a record that is wrong may be one that was being written: nothing is behind it.
fn is_last(bytes: &[u8]) -> bool {
    let Some(length) = claimed_length(bytes) else { return true };
    bytes.len() <= RECORD_HEADER.saturating_add(length) || is_zero(bytes)
}

fn claimed_length(bytes: &[u8]) -> Option<usize> {
    let length = bytes.get(..4)?.try_into().ok()?;
    Some(u32::from_le_bytes(length) as usize)
}

fn is_zero(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| *byte == 0)
}

fn follow(record: &[u8], current: Generation, state: &mut DesiredState) -> Result<Generation, String> {
    let message = pb::Delta::decode(&record[8..]).map_err(|error| error.to_string())?;
    let delta = Delta::try_from(message).map_err(|invalid| invalid.to_string())?;
    if delta.base != current {
        return Err(format!("a change from generation {} follows generation {current}", delta.base));
    }
    delta.changes.into_iter().for_each(|change| state.apply(change));
    Ok(Generation(word(record, 0).unwrap_or_default()))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?.try_into().ok()?;
    Some(u64::from_le_bytes(bytes))
}

/// FNV-1a, 64 bits: enough to notice a torn or altered file, and the same in every build.
fn checksum(parts: &[&[u8]]) -> u64 {
    parts
        .iter()
        .flat_map(|part| part.iter())
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
