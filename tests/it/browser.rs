//! The report in a real browser: Chromium, headless. Nothing may be written to the console, nothing may leave the machine,
//! and at the width of a phone the page itself does not scroll sideways.
//!
//! Where there is no `chromium` these tests say so and do nothing, unless QEVAL_REQUIRE_BROWSER=1 (`.ci/run` sets it where
//! it finds or can install one).

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{demo_cousin, demo_model, demo_suite, qeval};

fn chromium() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| ["chromium", "chromium-browser", "google-chrome"].map(|name| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var_os("QEVAL_REQUIRE_BROWSER").is_some_and(|value| value == "1");
        assert!(!required, "QEVAL_REQUIRE_BROWSER=1, but there is no chromium on PATH");
        eprintln!("skipped: there is no chromium on PATH");
    }
    found
}

/// What a page came to: its document after scripts ran, what was written to the console, addresses that were asked for.
struct Seen {
    dom: String,
    console: Vec<String>,
    addresses: Vec<String>,
}

fn open(chromium: &Path, page: &Path, profile: &Path) -> Seen {
    let log = profile.join("net.json");
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-default-apps"])
        .args([
            "--enable-logging=stderr",
            "--v=0",
            "--allow-file-access-from-files",
            "--virtual-time-budget=5000",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("--log-net-log={}", log.display()))
        .args(["--net-log-capture-mode=Everything", "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .expect("chromium starts");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let console = stderr.lines().filter(|line| line.contains(":CONSOLE")).map(str::to_owned).collect();
    let log = std::fs::read_to_string(&log).unwrap();
    let addresses = log
        .split("\"url\":\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .filter(|url| !url.starts_with("file:") && !url.starts_with("data:") && !is_the_browsers_own(url))
        .map(str::to_owned)
        .collect();
    Seen { dom: String::from_utf8_lossy(&output.stdout).into_owned(), console, addresses }
}

/// What Chromium asks for by itself, on an empty page too: its clock, its updates, its accounts.
fn is_the_browsers_own(url: &str) -> bool {
    const HOSTS: [&str; 3] = ["clients2.google.com", "update.googleapis.com", "accounts.google.com"];
    let host = url.split("://").nth(1).and_then(|rest| rest.split('/').next());
    host.is_some_and(|host| HOSTS.contains(&host))
}

/// A run with answers, layers and linears, in a folder of its own.
fn run() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let suite = demo_suite(folder.path(), &["en", "de", "en-questions", "de-questions", "zh-endings"]);
    let out = folder.path().join("run");
    let output = qeval([
        "compare".as_ref(),
        demo_model().as_os_str(),
        demo_cousin("q8_0").as_os_str(),
        demo_cousin("q2_k").as_os_str(),
        "--suite".as_ref(),
        suite.as_os_str(),
        "--limit".as_ref(),
        "12".as_ref(),
        "--probe".as_ref(),
        "linear".as_ref(),
        "--probe-tokens".as_ref(),
        "256".as_ref(),
        "--quiet".as_ref(),
        "--out".as_ref(),
        out.as_os_str(),
    ]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    (folder, out.join("report.html"))
}

/// A page that holds another one in a frame of the given width and writes down how wide it wants to be.
fn framed(report: &Path, width: u32) -> PathBuf {
    let wrapper = report.with_file_name("framed.html");
    let text = format!(
        "<!DOCTYPE html><meta charset=\"utf-8\"><iframe id=\"f\" width=\"{width}\" height=\"900\" \
         style=\"border:0\" src=\"report.html\"></iframe><output id=\"o\"></output><script>\
         const f = document.getElementById('f'); f.onload = () => {{ const d = f.contentDocument; \
         document.getElementById('o').textContent = [d.documentElement.scrollWidth, d.documentElement.clientWidth, \
         d.querySelectorAll('th[aria-sort], th button').length, d.querySelectorAll('svg').length].join(' '); }};</script>"
    );
    std::fs::write(&wrapper, text).unwrap();
    wrapper
}

#[test]
fn a_new_report_opens_quietly_and_fits_a_phone() {
    let Some(chromium) = chromium() else { return };
    let (folder, report) = run();
    opens_quietly(&chromium, folder.path(), &report);
}

#[test]
fn the_sample_report_opens_quietly_and_fits_a_phone() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.html");
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports/sample/report.html");
    std::fs::copy(sample, &report).unwrap();
    opens_quietly(&chromium, folder.path(), &report);
}

fn opens_quietly(chromium: &Path, folder: &Path, report: &Path) {
    let profile = folder.join("profile");
    let seen = open(chromium, report, &profile);
    assert_eq!(seen.console, Vec::<String>::new());
    assert_eq!(seen.addresses, Vec::<String>::new());
    assert!(seen.dom.contains("<h1") && seen.dom.contains("</html>"));
    assert!(seen.dom.matches("<button").count() > 10, "the script ran: headings became buttons");
    for width in [390, 1280] {
        let seen = open(chromium, &framed(report, width), &profile);
        let output = seen.dom.split("<output id=\"o\">").nth(1).and_then(|rest| rest.split('<').next());
        let numbers: Vec<u32> = output.unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(
            numbers[0] <= numbers[1],
            "at {width} px the page is {} px wide, of {}",
            numbers[0],
            numbers[1]
        );
        assert!(numbers[1] <= width && numbers[2] > 10 && numbers[3] > 10, "{numbers:?}");
    }
}

/// The test must see what it looks for: a page that complains, asks for a picture and is too wide.
#[test]
fn a_bad_page_is_seen() {
    let Some(chromium) = chromium() else { return };
    let folder = tempfile::tempdir().unwrap();
    let report = folder.path().join("report.html");
    std::fs::write(
        &report,
        "<!DOCTYPE html><h1>x</h1><img src=\"http://localhost:9/picture.png\"><div style=\"width:2000px\">wide</div>\
         <script>console.error('complaint')</script>",
    )
    .unwrap();
    let profile = folder.path().join("profile");
    let seen = open(&chromium, &report, &profile);
    assert!(seen.console.iter().any(|line| line.contains("complaint")), "{:?}", seen.console);
    assert!(seen.addresses.iter().any(|url| url.contains("picture.png")), "{:?}", seen.addresses);
    let seen = open(&chromium, &framed(&report, 390), &profile);
    let output = seen.dom.split("<output id=\"o\">").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    let numbers: Vec<u32> = output.split(' ').map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] > numbers[1], "{output}");
}
