//! The report as a browser shows it: Chromium without a screen loads the page, and what it made of it is looked at.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod sample;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The plots a full run has to have.
const PLOTS: [&str; 24] = [
    "throughput-ndr-plain/v4",
    "throughput-pdr-vxlan/v4",
    "lockstep-packet-plain/v4",
    "lockstep-packet-vxlan/v4",
    "latency-load-10/quiet/plain/v4",
    "latency-load-90/busy/plain/v4",
    "calls-mos-calls",
    "calls-jitter-calls",
    "calls-loss-calls",
    "calls-calls-relay",
    "engine-stages",
    "engine-packet-batch",
    "engine-rate",
    "scaling-flows",
    "scaling-rules",
    "scaling-routes",
    "scaling-pods",
    "policy-miss-growth-rules",
    "policy-compile-rules",
    "policy-label",
    "bulk-goodput-node/streams-1",
    "game-tick-jitter-players",
    "pods-idle-cost-pods",
    "churn-in-force",
];

/// Chromium, or None after saying loudly that nothing was looked at. CI must have it.
fn chromium() -> Option<&'static str> {
    let found = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(|name| {
        let tried = Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.is_ok_and(|status| status.success())
    });
    if found.is_none() {
        assert!(std::env::var_os("CI").is_none(), "CI has to have chromium (testbeds/setup.sh installs it)");
        eprintln!(
            "SKIPPED: no chromium here, so the report was not opened (Debian: apt-get install chromium)"
        );
    }
    found
}

/// Loads a page; gives what was printed to stdout and stderr.
fn browse(chromium: &str, profile: &Path, options: &[&str], page: &Path) -> (String, String) {
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "120",
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--no-first-run",
            "--disable-background-networking",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(options)
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{chromium} {options:?}: {}\n{err}", output.status);
    // What scripts and the page's policy complain of comes as CONSOLE lines.
    assert!(!err.contains("CONSOLE"), "{err}");
    (out, err)
}

fn written(folder: &Path) -> PathBuf {
    let page = folder.join("report.html");
    std::fs::write(&page, vswitch_perf::report::html(&[("full.json".to_owned(), sample::full())])).unwrap();
    page
}

#[test]
fn a_browser_shows_every_plot() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let page = written(folder.path());
    let (dom, _) = browse(chromium, &folder.path().join("profile"), &["--dump-dom"], &page);
    for plot in PLOTS {
        assert!(dom.contains(&format!("<svg class=\"plot\" id=\"{plot}\"")), "no plot {plot}");
    }
    // The browser parsed each plot as SVG: none was cut off, and nothing was misplaced.
    assert_eq!(dom.matches("<svg ").count(), dom.matches("</svg>").count());
    assert!(!dom.contains("NaN") && !dom.contains("<b>markup</b>") && !dom.contains("<script>alert"));
    assert!(dom.contains("the hypervisor took 31 % of the time") && dom.contains("<s>9000</s>"), "void rows");
    assert!(dom.contains("<code>instructions</code>"), "what was not measured is named");
    // The data that went in is there to be taken out.
    let data = dom.split("id=\"data-1\">").nth(1).unwrap().split("</script>").next().unwrap();
    let expected = serde_json::to_string(&sample::full()).unwrap().replace('<', "\\u003c");
    assert!(data == expected, "the data in the page is not what it was made of");
}

#[test]
fn the_picture_is_not_blank() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let blank = folder.path().join("blank.html");
    std::fs::write(&blank, "<!doctype html><title>blank</title>").unwrap();
    let size = |name: &str, page: &Path, dark: bool| {
        let picture = folder.path().join(name);
        let shot = format!("--screenshot={}", picture.display());
        let mut options = vec!["--window-size=1280,2400", &shot];
        // 0 is dark in Chromium's list of colour schemes.
        options.extend(dark.then_some("--blink-settings=preferredColorScheme=0"));
        browse(chromium, &folder.path().join("profile"), &options, page);
        std::fs::read(&picture).unwrap()
    };
    let blank = size("blank.png", &blank, false);
    let page = written(folder.path());
    let (light, dark) = (size("light.png", &page, false), size("dark.png", &page, true));
    // A picture compresses the worse the more there is to see.
    for (name, picture) in [("light", &light), ("dark", &dark)] {
        assert!(
            picture.len() > 100_000 && picture.len() > 5 * blank.len(),
            "{name}: {} bytes",
            picture.len()
        );
    }
    assert_ne!(light, dark, "the page follows the reader's colour scheme");
    // Kept where a person can look at them.
    std::fs::copy(&page, Path::new(env!("CARGO_TARGET_TMPDIR")).join("report.html")).unwrap();
    for (name, picture) in [("report-light.png", light), ("report-dark.png", dark)] {
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), picture).unwrap();
    }
}
