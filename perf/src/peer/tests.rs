//! Peers as programs: found or named, started, watched and ended.

use super::*;

fn sh(script: &str, log: &Path) -> Program {
    Program::start(Command::new("sh").args(["-c", script]), Stdio::null(), log).unwrap()
}

#[test]
fn a_missing_peer_is_named_with_what_installs_it() {
    let error = find("ovs", "no-such-program", "openvswitch-switch").unwrap_err();
    assert!(matches!(error, Error::Unmet(_)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("peer ovs is missing") && text.ends_with("openvswitch-switch)"), "{text}");
    assert!(find("shell", "sh", "dash").unwrap().ends_with("sh"));
}

#[test]
fn a_program_goes_with_its_value() {
    let folder = folder().unwrap();
    let program = sh("exec sleep 1000", &folder.path().join("log"));
    let process = PathBuf::from(format!("/proc/{}", program.pid()));
    assert!(process.exists());
    drop(program);
    assert!(!process.exists());
}

#[test]
fn a_program_that_ends_early_has_the_last_word() {
    let folder = folder().unwrap();
    let mut program = sh("echo one; echo; echo no memory >&2; exit 3", &folder.path().join("log"));
    let text = program.wait("start it", || false).unwrap_err().to_string();
    assert!(
        text.contains("start it") && text.contains(": 3)") && text.ends_with("one | no memory"),
        "{text}"
    );
}

#[test]
fn a_thread_is_found_by_its_name() {
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let body = move || assert!(told.recv().is_err(), "nobody tells it anything");
    let other = std::thread::Builder::new().name("peer-test-7".to_owned()).spawn(body).unwrap();
    let mut found = None;
    vswitch_testbeds::command::wait_until("a thread", PATIENCE, || {
        found = thread("self", "peer-test-");
        found.is_some()
    })
    .unwrap();
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", found.unwrap())).unwrap();
    assert_eq!(comm.trim(), "peer-test-7");
    assert_eq!(thread("self", "no-such-thread"), None);
    drop(tell);
    other.join().unwrap();
}
