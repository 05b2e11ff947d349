//! The page as a whole: structure, names for those who do not see it, hostile text, size.

use sha2::{Digest, Sha256};

use super::*;
use crate::comparison::pairwise::PairedFigure;
use crate::report::fixture::{self, Damage, NONE, elements};

const HOSTILE: &str = "<script>alert(1)</script>\"'&{{headline}}\u{0}\u{1b}[31m\u{202e}";

/// A comparison whose every foreign text is hostile.
fn hostile(tame: &Comparison) -> Comparison {
    fixture::hostile(tame, HOSTILE)
}

#[test]
fn the_page_is_well_formed_and_complete() {
    let page = page(&fixture::comparison()).unwrap();
    let elements = elements(&page);
    assert_eq!(elements.iter().filter(|e| *e == "h1").count(), 1);
    assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 14, "seven charts, wide and narrow");
    assert!(!page.contains("<h2 id=\"questions\">"), "nothing was asked");
    assert!(!page.contains("{{") && !page.contains("}}"), "every placeholder is filled");
    for id in ["summary", "tasks", "distribution", "confidence", "layers", "weights", "tokens", "provenance"]
    {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
        assert!(page.contains(&format!("href=\"#{id}\"")), "{id}");
    }
    assert_eq!(
        elements.iter().filter(|e| *e == "table").count(),
        elements.iter().filter(|e| *e == "caption").count()
    );
}

#[test]
fn nothing_is_fetched() {
    let page = page(&fixture::comparison()).unwrap();
    for forbidden in [
        "http:", "https:", "src=", "url(", "@import", "<link", "<img", "<iframe", "<object", "<base",
        "fetch(",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn hostile_text_stays_text() {
    for comparison in [fixture::comparison(), fixture::with_questions(), fixture::alone()] {
        let (tame, page) = (page(&comparison).unwrap(), page(&hostile(&comparison)).unwrap());
        assert!(!page.contains("<script>alert"));
        assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;{{headline}}␀␛"));
        assert_eq!(elements(&page), elements(&tame), "foreign text must not add, remove or move an element");
        assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "no control character survives");
        assert!(!page.contains('\u{202e}'));
    }
}

#[test]
fn answers_have_sections_of_their_own() {
    let page = page(&fixture::with_questions()).unwrap();
    let elements = elements(&page);
    assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 22, "eleven charts, wide and narrow");
    for id in ["questions", "languages", "difficulty", "written", "traces", "bytes", "foreign", "flipped"] {
        assert!(page.contains(&format!("<h2 id=\"{id}\">")), "{id}");
    }
    assert_eq!(
        elements.iter().filter(|e| *e == "table").count(),
        elements.iter().filter(|e| *e == "caption").count()
    );
    for wanted in
        ["Thai (th)", "4 digits", "not shown", "base is not shown to be better than guessing", "1 not judged"]
    {
        assert!(page.contains(wanted), "{wanted}");
    }
}

#[test]
fn what_a_model_wrote_is_text() {
    let comparison = fixture::with_questions();
    assert_eq!(comparison.quants[0].flipped[0].quant_answer, fixture::HOSTILE_ANSWER);
    let page = page(&comparison).unwrap();
    let shown = "<b>cousin: wrong</b><blockquote dir=\"auto\">&lt;/blockquote&gt;&lt;script&gt;\
        alert(&#39;answer&#39;)&lt;/script&gt;␛[2J\u{fffd}\nline two</blockquote>";
    assert_eq!(page.matches(shown).count(), 3, "two cousins and one of another vocabulary");
}

#[test]
fn a_model_alone_has_a_page_without_charts_of_cousins() {
    let page = page(&fixture::alone()).unwrap();
    let elements = elements(&page);
    assert_eq!(elements.iter().filter(|e| *e == "svg").count(), 2, "difficulty, wide and narrow");
    assert!(page.contains("Scores of this model alone") && page.contains("Texts under this model alone"));
    assert!(!page.contains("<h2 id=\"size\">") && !page.contains("<h2 id=\"summary\">"));
}

#[test]
fn odd_comparisons_make_a_page() {
    let mut bare = fixture::of(Vec::new());
    (bare.noise_floor, bare.tasks, bare.warnings) = (None, Vec::new(), Vec::new());
    elements(&page(&bare).unwrap());
    let some = Damage { kl: f64::NAN, ppl_ratio: f64::NAN, ..NONE };
    let mut odd = fixture::of(vec![fixture::quant("same", NONE), fixture::quant("lost", some)]);
    odd.quants[0].tasks[0].metrics = None;
    odd.quants[0].by_context_position[0].metrics = None;
    elements(&page(&odd).unwrap());
}

#[test]
fn filling_does_not_look_at_what_it_filled_in() {
    let values = [("a", "{{b}}".to_owned()), ("b", "x".to_owned())];
    assert_eq!(fill("1{{a}}2{{b}}3{{unknown}}4{{", &values), "1{{b}}2x34{{");
}

#[test]
fn the_policy_names_the_script_by_its_hash() {
    assert!(!SCRIPT.contains("{{") && !SCRIPT.contains("</"));
    assert_eq!(SCRIPT_HASH, format!("sha256-{}", base64(&Sha256::digest(SCRIPT))));
}

fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |three: &[u8]| {
        let bits = three.iter().fold(0u32, |bits, &b| bits << 8 | u32::from(b)) << (8 * (3 - three.len()));
        let sign = |i: usize| {
            if i <= three.len() { SIGNS[(bits >> (18 - 6 * i)) as usize & 63] as char } else { '=' }
        };
        (0..4).map(sign).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// Every start tag, without its brackets, in order; nothing of what is in scripts and styles.
fn tags(page: &str) -> Vec<&str> {
    let page = page.split("<script>").next().unwrap();
    let page = page.split("</style>").nth(1).unwrap();
    page.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(tag, _)| tag).collect()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.split_once(&format!(" {name}=\""))?.1.split('"').next()
}

fn every_page() -> Vec<(&'static str, String)> {
    let pair = |better, worse| Pair {
        better,
        worse,
        kl_divergence: Some(PairedFigure {
            difference: fixture::estimate(0.002, 0.001),
            p: Some(0.001),
            p_holm: Some(0.002),
            is_shown: true,
        }),
        accuracy: None,
    };
    let paired = with_pairs(&fixture::comparison(), &[pair(0, 1), pair(1, 2)]).unwrap();
    vec![
        ("text", page(&fixture::comparison()).unwrap()),
        ("questions", page(&fixture::with_questions()).unwrap()),
        ("alone", page(&fixture::alone()).unwrap()),
        ("pairs", paired),
    ]
}

#[test]
fn headings_are_in_order_and_there_is_one_of_the_first() {
    for (name, page) in every_page() {
        let headings: Vec<u32> =
            tags(&page).into_iter().filter_map(|tag| tag.strip_prefix('h')?.get(..1)?.parse().ok()).collect();
        assert_eq!(headings.first(), Some(&1), "{name}");
        assert_eq!(headings.iter().filter(|level| **level == 1).count(), 1, "{name}");
        assert!(headings.windows(2).all(|pair| pair[1] <= pair[0] + 1), "{name}: {headings:?}");
        assert!(page.contains("<html lang=\"en\">"));
    }
}

#[test]
fn every_table_has_a_caption_and_every_heading_a_scope() {
    for (name, page) in every_page() {
        let tags = tags(&page);
        let mut tables = 0;
        for (i, tag) in tags.iter().enumerate() {
            if tag.starts_with("table") {
                assert_eq!(tags[i + 1], "caption", "{name}");
                tables += 1;
            }
            if tag.starts_with("th ") || *tag == "th" {
                let scope = attribute(tag, "scope").unwrap_or_else(|| panic!("{name}: {tag}"));
                assert!(["row", "col"].contains(&scope), "{name}: {tag}");
            }
        }
        assert!(tables > 2, "{name}");
    }
}

#[test]
fn every_chart_has_a_name_and_its_figures_as_text() {
    for (name, page) in every_page() {
        for tag in tags(&page).into_iter().filter(|tag| tag.starts_with("svg")) {
            assert_eq!(attribute(tag, "role"), Some("img"), "{name}: {tag}");
            assert!(attribute(tag, "aria-label").is_some_and(|label| !label.is_empty()), "{name}: {tag}");
        }
        if name == "alone" {
            continue;
        }
        for tag in tags(&page).into_iter().filter(|tag| tag.starts_with("svg")) {
            let id = attribute(tag, "aria-describedby").unwrap_or_else(|| panic!("{name}: {tag}"));
            let (_, text) = page.split_once(&format!("<p class=\"unseen\" id=\"{id}\">")).unwrap();
            let text = text.split("</p>").next().unwrap();
            assert!(text.contains("polyglot6m-Q8_0: "), "{id}: {text}");
        }
    }
    let page = page(&fixture::comparison()).unwrap();
    assert!(
        page.contains("polyglot6m-Q2_K: 2.62 MB, mean KL divergence 0.0211\u{a0}[0.0198,\u{a0}0.0223] nats.")
    );
}

#[test]
fn ids_are_unique_and_links_lead_somewhere() {
    for (name, page) in every_page() {
        let tags = tags(&page);
        let mut ids: Vec<&str> = tags.iter().filter_map(|tag| attribute(tag, "id")).collect();
        let all = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), all, "{name}");
        let links = tags.iter().filter_map(|tag| attribute(tag, "href")?.strip_prefix('#'));
        let named = tags.iter().flat_map(|tag| {
            ["aria-labelledby", "aria-describedby", "data-list"].map(|key| attribute(tag, key))
        });
        for id in links.chain(named.flatten()) {
            assert!(ids.binary_search(&id).is_ok(), "{name}: {id}");
        }
    }
}

#[test]
fn every_cousin_has_a_line_with_a_word_for_what_it_lost() {
    let text = page(&fixture::with_questions()).unwrap();
    let list = text.split("<ol class=\"cousins\">").nth(1).unwrap().split("</ol>").next().unwrap();
    assert_eq!(list.matches("<li>").count(), 3);
    assert!(list.contains("<span aria-hidden=\"true\">○</span> loss not shown</span>"), "{list}");
    assert!(list.contains("<span aria-hidden=\"true\">▼</span> clear loss</span>"), "{list}");
    assert!(text.find("<ol class=\"cousins\">") < text.find("<h2 id=\"size\">"));
    let mut worse = fixture::with_questions();
    worse.quants[0].overall = fixture::token_metrics(Damage { kl: 3.0, top1: 0.2, ..NONE });
    let page = page(&worse).unwrap();
    assert!(page.contains("<span aria-hidden=\"true\">✕</span> broken</span>"));
}

#[test]
fn samples_can_be_chosen_by_number() {
    let mut comparison = fixture::with_questions();
    let mut gained = comparison.quants[0].flipped[0].clone();
    (gained.task, gained.base_score, gained.quant_score) = ("logic <b>".to_owned(), 0.0, 1.0);
    comparison.quants[1].flipped.push(gained);
    let page = page(&comparison).unwrap();
    let filter = page.split("data-list=\"flipped-samples\"").nth(1).unwrap().split("</div>").next().unwrap();
    assert!(filter.starts_with(" data-noun=\"sample\" hidden>"), "asleep without the script: {filter}");
    for wanted in [
        "<input type=\"search\"",
        "<option value=\"1\">polyglot6m-Q2_K</option>",
        "<option value=\"1\">logic &lt;b&gt;</option>",
        "<option value=\"1\">wrong → right</option>",
        "<p role=\"status\" aria-live=\"polite\">4 samples</p>",
    ] {
        assert!(filter.contains(wanted), "{wanted}: {filter}");
    }
    assert_eq!(page.matches("<li data-cousin=\"1\" data-task=\"1\" data-way=\"1\">").count(), 1);
    assert_eq!(page.matches("data-way=\"0\">").count(), 3);
    assert!(page.contains("data-list=\"worst-tokens\""));
    let labels = filter.matches("<label>").count();
    assert_eq!(labels, filter.matches("<select").count() + 1, "every control has a label");
}

#[test]
fn pairs_have_a_section_only_where_there_are_any() {
    let pages = every_page();
    let of = |name: &str| &pages.iter().find(|(n, _)| *n == name).unwrap().1;
    assert!(!of("text").contains("<h2 id=\"pairs\">"));
    assert!(of("pairs").contains("<h2 id=\"pairs\">") && of("pairs").contains("href=\"#pairs\""));
    assert!(of("pairs").contains("polyglot6m-Q8_0 ahead of polyglot6m-Q4_K_M: shown in KL divergence"));
}

/// Ten cousins with 33 layers and answers to 24 tasks.
fn large() -> Comparison {
    let mut comparison = fixture::with_questions();
    let questions = comparison.quants[1].questions.as_mut().unwrap();
    let graded = questions.tasks.iter().find(|task| !task.levels.is_empty()).unwrap().clone();
    for i in questions.tasks.len()..24 {
        let mut task = graded.clone();
        task.key.task = format!("reasoning/family-{i}");
        questions.tasks.push(task);
        let mut language = questions.languages[0].clone();
        language.language = format!("x-{i}");
        questions.languages.push(language);
    }
    let card = comparison.tasks[0].clone();
    let quant = &mut comparison.quants[1];
    let (text, layer) = (quant.tasks[0].clone(), quant.layers[3].clone());
    for i in 0..24 {
        let task = format!("multilingual/language-{i}");
        quant.tasks.push(crate::comparison::TaskMetrics { task: task.clone(), ..text.clone() });
        comparison.tasks.push(crate::comparison::TaskCard { name: task, ..card.clone() });
    }
    for i in quant.layers.len()..34 {
        quant.layers.push(crate::comparison::LayerComparison {
            layer: i - 1,
            base_layer: i - 1,
            ..layer.clone()
        });
    }
    for layer in 0..33 {
        for linear in ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"] {
            let errors = quant.layers[3].injected.clone().unwrap();
            quant.linears.push(crate::comparison::LinearComparison {
                layer,
                linear: linear.to_owned(),
                cumulative: errors.clone(),
                injected: errors,
            });
        }
    }
    let (sample, token) = (quant.flipped[0].clone(), quant.worst_tokens[0].clone());
    quant.flipped = (0..60).map(|_| sample.clone()).collect();
    quant.worst_tokens = (0..40).map(|_| token.clone()).collect();
    let quant = comparison.quants[1].clone();
    comparison.quants = (0..10)
        .map(|i| {
            let mut quant = quant.clone();
            quant.model.label = format!("Some-Model-8B-Instruct-variant-{i}");
            quant.overall.kl_divergence.mean.value *= 1.0 + f64::from(i);
            quant
        })
        .collect();
    comparison
}

#[test]
fn ten_cousins_make_a_page_that_can_be_mailed() {
    let page = page(&large()).unwrap();
    assert!(page.len() < 5_000_000, "{} bytes", page.len());
    assert!(page.len() > 500_000, "the fixture is not what it should be: {} bytes", page.len());
    assert!(
        page.contains("20 more samples in comparison.json")
            && page.contains("20 more tokens in comparison.json")
    );
}
