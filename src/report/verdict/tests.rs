//! A verdict with hostile names, in every form.

use super::*;
use crate::gate::Subject;
use crate::gate::metric::Metric;
use crate::gate::policy::{Limit, Per};

const HOSTILE: &str = "<b>|a\n::error::x\u{1b}[2J@someone \"q\" & 100 %";

fn check(rule: &str, cousin: Option<&str>, outcome: Outcome) -> Check {
    Check {
        rule: rule.to_owned(),
        why: Some("because".to_owned()),
        cousin: cousin.map(str::to_owned),
        subject: Some(Subject { per: Per::Task, name: Some("exam/th".to_owned()) }),
        metric: Some(Metric::Recovery),
        against_previous: false,
        limit: Some(Limit::Min(0.99)),
        outcome,
        value: Some(0.98),
        lower: Some(0.97),
        upper: Some(0.99),
        confidence: Some(0.95),
        samples: Some(600),
        samples_needed: None,
        reason: None,
        message: format!("found for {rule}"),
    }
}

fn verdict() -> Verdict {
    let mut checks = vec![
        check("ok", Some("Q8"), Outcome::Pass),
        check("bad", Some("Q8"), Outcome::Fail),
        check("open", Some("Q8"), Outcome::Inconclusive),
        check(HOSTILE, Some(HOSTILE), Outcome::NotMeasured),
    ];
    checks.extend((0..20).map(|_| check("many", Some(HOSTILE), Outcome::Fail)));
    checks[3].message = HOSTILE.to_owned();
    Verdict {
        schema_version: 1,
        qeval_version: "0.1.0".to_owned(),
        policy: "release".to_owned(),
        run_created_utc: "2026-01-02T03:04:05Z".to_owned(),
        previous_created_utc: None,
        outcome: Outcome::NotMeasured,
        checks,
        notes: vec!["a note".to_owned()],
    }
}

#[test]
fn the_terminal_tells_what_does_not_pass_and_counts_the_rest() {
    let text = terminal(&verdict(), 80);
    assert!(
        text.starts_with(
            "gate release: NOT MEASURED (1 not measured, 21 failed, 1 inconclusive, 1 passed)\n"
        )
    );
    assert!(text.lines().all(|line| unicode_width::UnicodeWidthStr::width(line) <= 80), "{text}");
    assert!(
        text.contains("FAIL          bad, exam/th: found for bad\n") && text.contains("\n  bad: because\n"),
        "{text}"
    );
    assert!(
        text.contains("many: 16 more checks")
            && text.contains("pass          ok\n")
            && text.contains("note: a note")
    );
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
}

#[test]
fn junit_is_xml_with_a_case_for_each_check() {
    for (lets_pass, failures, skipped) in [(false, "22", "0"), (true, "21", "1")] {
        let text = junit::document(&verdict(), lets_pass);
        let document = roxmltree::Document::parse(&text).unwrap();
        let root = document.root_element();
        let counts = ["tests", "failures", "errors", "skipped"].map(|name| root.attribute(name).unwrap());
        assert_eq!(counts, ["24", failures, "1", skipped]);
        let suites: Vec<_> = root.children().filter(|node| node.is_element()).collect();
        assert_eq!(suites.len(), 2);
        let sum = |name: &str| -> u32 {
            suites.iter().map(|s| s.attribute(name).unwrap().parse::<u32>().unwrap()).sum()
        };
        assert_eq!((sum("tests"), sum("errors")), (24, 1));
        let cases: Vec<_> = root.descendants().filter(|node| node.has_tag_name("testcase")).collect();
        assert_eq!(cases.len(), 24);
        let with = |tag: &str| {
            cases.iter().filter(|c| c.children().any(|n| n.has_tag_name(tag))).count().to_string()
        };
        assert_eq!([with("failure"), with("error"), with("skipped")], [failures, "1", skipped]);
        let error = root.descendants().find(|node| node.has_tag_name("error")).unwrap();
        assert!(error.attribute("message").unwrap().starts_with("<b>|a"), "the text comes back as it was");
    }
}

#[test]
fn annotations_are_one_line_each_and_no_more_than_are_shown() {
    let text = github::annotations(&verdict());
    assert_eq!(text.matches("::error title=").count(), 10);
    assert_eq!(text.matches("::warning title=").count(), 1);
    assert!(
        text.lines().all(|line| line.starts_with("::error title=") || line.starts_with("::warning title="))
    );
    assert!(text.contains("13 more checks") && text.contains("100 %25") && !text.contains('\u{1b}'));
    let title = text.lines().next().unwrap().split("::").nth(1).unwrap();
    assert!(!title.trim_start_matches("error title=").contains([',', ':']), "{title}");
    let passed =
        Verdict { outcome: Outcome::Pass, checks: vec![check("ok", None, Outcome::Pass)], ..verdict() };
    assert_eq!(github::annotations(&passed), "::notice title=qeval::gate release: pass (1 passed)\n");
}

#[test]
fn the_summary_is_a_table_that_nothing_breaks_out_of() {
    let text = github::summary(&verdict());
    let rows: Vec<&str> = text.lines().filter(|line| line.starts_with('|')).collect();
    assert_eq!(rows.len(), 26);
    for row in rows {
        assert_eq!(row.matches('|').count(), 5, "{row}");
    }
    assert!(!text.contains("<b>") && !text.contains("@someone"));
    assert!(text.find("NOT MEASURED |").unwrap() < text.find("| FAIL").unwrap());
    let many = (0..3000).map(|_| check("many", Some("Q8"), Outcome::Fail)).collect();
    let long = github::summary(&Verdict { checks: many, ..verdict() });
    assert!(long.len() < 61_000 && long.contains("more checks not shown here"));
}
