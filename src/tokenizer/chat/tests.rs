//! Small templates against Python's recorded answers, templates that mean harm, and what is built on rendering.

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::*;

mod facts;

fn user(text: &str) -> Message {
    Message::new(Role::User, text)
}

fn system(text: &str) -> Message {
    Message::new(Role::System, text)
}

fn assistant(text: &str) -> Message {
    Message::new(Role::Assistant, text)
}

fn compile(template: &str) -> Result<ChatTemplate> {
    ChatTemplate::new(template.to_owned(), "<s>".to_owned(), "</s>".to_owned(), "a test".to_owned())
}

fn render(template: &str, messages: &[Message]) -> Result<String> {
    compile(template)?.render(messages, true, &RenderOptions::default())
}

/// The conversation that the facts were recorded with.
fn conversation() -> Vec<Message> {
    let role = |name: &str| {
        *[Role::System, Role::User, Role::Assistant].iter().find(|role| role.name() == name).unwrap()
    };
    facts::CONVERSATION.iter().map(|(name, content)| Message::new(role(name), *content)).collect()
}

#[test]
fn small_templates_render_as_in_python() {
    let messages = conversation();
    let wrong: Vec<_> = facts::RENDERED
        .iter()
        .filter_map(|(template, expected)| {
            let got = render(template, &messages).map_err(|error| error.to_string());
            (got.as_deref() != Ok(expected)).then_some((template, expected, got))
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(facts::RENDERED.len() >= 340);
}

#[test]
fn what_python_refuses_is_refused() {
    let messages = conversation();
    let accepted: Vec<_> = facts::REFUSED
        .iter()
        .filter_map(|template| Some((template, render(template, &messages).ok()?)))
        .collect();
    assert!(accepted.is_empty(), "{accepted:#?}");
}

#[test]
fn what_is_not_supported_is_an_error_with_its_line() {
    let messages = conversation();
    for template in facts::UNSUPPORTED {
        let error = render(&format!("one\ntwo\n{template}"), &messages).unwrap_err().to_string();
        assert!(
            error.starts_with("a test: the chat template, line 3 cannot be rendered: "),
            "{template}: {error}"
        );
    }
    // A line in the middle, after rewritten tags, and inside a macro.
    let template = "{% generation %}\n{{ 2 * 3 }}\n{% endgeneration %}\n{% macro m() %}\n{{ 'x'.nope() }}\n{% endmacro %}\n\n{{ m() }}";
    let error = render(template, &[]).unwrap_err().to_string();
    assert!(error.contains("line 5 cannot be rendered: unknown method"), "{error}");
}

#[test]
fn known_differences_are_these() {
    let messages = conversation();
    for (template, python, here) in facts::DIFFERENT {
        assert_ne!(*python, Some(*here));
        assert_eq!(render(template, &messages).unwrap(), *here, "{template}");
    }
    assert!(facts::DIFFERENT.len() <= 7);
}

#[test]
fn every_slice_is_pythons() {
    let template = "{% for a in range(-6, 7) %}{% for b in range(-6, 7) %}{% for c in [-3, -2, -1, 1, 2, 3] %}\
                    {{ 'abcd'[a:b:c] }},{{ [1, 2, 3, 4][a:b:c]|join }},{{ 'abcd'[a::c] }},{{ 'abcd'[:b:c] }};\
                    {% endfor %}{% endfor %}{% endfor %}";
    let text = render(template, &[]).unwrap();
    let hash: String = Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
    // Python's result for the same template.
    assert_eq!(text.len(), 8104);
    assert_eq!(hash, "0a6948fbe894003544f7e1eb462ae4f18c7b3a8051fdd1c01170b142f9e179d2");
}

#[test]
fn dates_are_strftimes() {
    // Python's datetime.strftime("%a %j %u %w %y %b %I %p %e|%-d|%-m|%Y") at 13:05:09.
    let facts = [
        ((1582, 10, 15), "Fri 288 5 5 82 Oct 01 PM 15|15|10|1582"),
        ((1900, 2, 28), "Wed 059 3 3 00 Feb 01 PM 28|28|2|1900"),
        ((1900, 3, 1), "Thu 060 4 4 00 Mar 01 PM  1|1|3|1900"),
        ((1970, 1, 1), "Thu 001 4 4 70 Jan 01 PM  1|1|1|1970"),
        ((1999, 12, 31), "Fri 365 5 5 99 Dec 01 PM 31|31|12|1999"),
        ((2000, 2, 29), "Tue 060 2 2 00 Feb 01 PM 29|29|2|2000"),
        ((2024, 7, 26), "Fri 208 5 5 24 Jul 01 PM 26|26|7|2024"),
        ((2024, 12, 31), "Tue 366 2 2 24 Dec 01 PM 31|31|12|2024"),
        ((2026, 11, 21), "Sat 325 6 6 26 Nov 01 PM 21|21|11|2026"),
        ((2100, 3, 1), "Mon 060 1 1 00 Mar 01 PM  1|1|3|2100"),
        ((9999, 12, 31), "Fri 365 5 5 99 Dec 01 PM 31|31|12|9999"),
    ];
    for ((year, month, day), expected) in facts {
        let date = Date { hour: 13, minute: 5, second: 9, ..Date::day(year, month, day).unwrap() };
        assert_eq!(date.format("%a %j %u %w %y %b %I %p %e|%-d|%-m|%Y").unwrap(), expected);
        let template = compile("{{ strftime_now('%F %T') }}").unwrap();
        let text = template.render(&[], false, &RenderOptions { date, ..RenderOptions::default() }).unwrap();
        assert_eq!(text, format!("{year}-{month:02}-{day:02} 13:05:09"));
    }
    for (year, month, day) in
        [(2023, 2, 29), (1900, 2, 29), (2024, 4, 31), (2024, 13, 1), (2024, 1, 0), (0, 1, 1)]
    {
        assert_eq!(Date::day(year, month, day), None);
    }
    assert_eq!(Date::FIXED.format("%Q"), Err("%Q".to_owned()));
    assert_eq!(Date::FIXED.format("%-B"), Err("%-B".to_owned()));
    assert!(render("{{ strftime_now('%') }}", &[]).is_err());
}

/// Templates that double, repeat, nest or descend; each must end in an error, on the small stack of a test's thread.
#[test]
fn templates_that_mean_harm_end_in_an_error() {
    let double = |start: &str, step: &str| {
        format!(
            "{{% set ns = namespace(s={start}) %}}{{% for i in range(200) %}}{{% set ns.s = {step} %}}{{% endfor %}}"
        )
    };
    let chain = |before: &str, part: &str, times: usize, after: &str| {
        format!("{{{{ {before}{}{after} }}}}", part.repeat(times))
    };
    let ten_megabytes = "{% set s = 'a' * 10000000 %}{% set t = s ~ '' %}{% for i in range(100000) %}";
    let often = |what: &str| format!("{ten_megabytes}{{% set y = {what} %}}{{% endfor %}}");
    let templates = [
        double("'x'", "ns.s ~ ns.s"),
        double("'x'", "ns.s + ns.s"),
        double("'x'", "'%s%s' % (ns.s, ns.s)"),
        double("'x'", "'{0}{0}'.format(ns.s)"),
        double("'xy'", "ns.s.replace('x', ns.s)"),
        double("'xy'", "ns.s|replace('x', ns.s)"),
        double("'x'", "[ns.s, ns.s]|join"),
        double("'x'", "ns.s * 2"),
        double("['x']", "ns.s * 2"),
        double("[1]", "ns.s + ns.s"),
        double("[1]", "[ns.s, ns.s]"),
        double("[1]", "(ns.s, ns.s)"),
        double("[1]", "{'a': ns.s, 'b': ns.s}"),
        double("[1]", "dict(a=ns.s, b=ns.s)"),
        double("[1]", "[ns.s]|map('list')|list + [ns.s]"),
        double("[1]", "ns.s|tojson ~ ns.s|tojson"),
        double("{}", "namespace(a=ns)"),
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}".to_owned(),
        "{% set ns = namespace() %}{{ {'a': 1}[[ns]] == [ns] }}".to_owned(),
        "{% macro f(x) %}{{ f(x ~ x) }}{% endmacro %}{{ f('aaaaaaaa') }}".to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% macro g() %}{{ caller() }}{% endmacro %}{% macro h() %}{% call g() %}{{ h() }}{% endcall %}{% endmacro %}{{ h() }}"
            .to_owned(),
        "{% for x in [[1]] recursive %}{{ loop([x]) }}{% endfor %}".to_owned(),
        "{% macro g(x) %}{% set y %}{{ x }}{{ x }}{% endset %}{{ g(y) }}{% endmacro %}{{ g('a') }}".to_owned(),
        "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}".to_owned(),
        format!("{{% for a in range(100000) %}}{{% set x %}}{}{{% endset %}}{{% endfor %}}", "x".repeat(90_000)),
        "{{ 'a' * 100000000 }}".to_owned(),
        format!("{{{{ 1 {} }}}}", "~ 'aaaa' * 60000000 ".repeat(60)),
        "{{ [1] * 100000000 }}".to_owned(),
        "{{ range(100000)|join('x' * 1000000) }}".to_owned(),
        "{{ ('x' * 1000000).join(['a'] * 100000) }}".to_owned(),
        "{{ ('x' * 1000000)|replace('', 'y' * 1000000) }}".to_owned(),
        "{{ ('\\n' * 1000000)|indent(1000000) }}".to_owned(),
        "{{ ([1] * 1000000)|tojson(indent='a' * 1000000) }}".to_owned(),
        "{{ ([1] * 100000)|tojson(separators=('a' * 1000000, 'b')) }}".to_owned(),
        "{{ '%1000000000d' % 1 }}".to_owned(),
        "{{ '%*d' % (1000000000, 1) }}".to_owned(),
        "{{ '{:>1000000000}'.format(1) }}".to_owned(),
        "{{ '{:>{}}'.format(1, 1000000000) }}".to_owned(),
        "{{ ('%s' * 10000) % (('a' * 1000000,) * 10000) }}".to_owned(),
        "{{ 10 ** 1000000000 }}".to_owned(),
        "{{ range(1000000000000) }}".to_owned(),
        "{{ (['a' * 1000000] * 60)|map('replace', 'a', 'b' * 1000)|list }}".to_owned(),
        often("'b' in s"),
        often("s|length"),
        often("s.strip()"),
        often("s[-1]"),
        often("s[::-1]"),
        often("s is lower"),
        often("s == t"),
        often("s < t < s"),
        often("loop.changed(s ~ i)"),
        "x".repeat(100_001),
        "{% include '<string>' %}".to_owned(),
    ];
    const LIMITS: [&str; 13] = [
        "larger than a prompt",
        "more work than",
        "more steps than",
        "more text than",
        "recursion limit",
        "nested too deeply",
        "namespace inside another",
        "wide padding",
        "a format within",
        "unable to calculate",
        "too many elements",
        "longer than any template",
        "are not supported",
    ];
    for template in templates {
        let start: String = template.chars().take(200).collect();
        let error = render(&template, &[user("x")]).unwrap_err().to_string();
        assert!(LIMITS.iter().any(|limit| error.contains(limit)), "{start}: {error}");
    }
    // The engine descends once for each part: these are refused for their length, or for what they do.
    let templates = [
        chain("x", "+1", 1_900, ""),
        chain("x", "+1", 700, ""),
        chain("messages", ".a", 1_900, ""),
        chain("messages", ".a", 700, ""),
        chain("x", "|nope", 280, ""),
        chain("x", "**x", 480, ""),
        chain("", "-", 1_400, "x"),
        chain("", "- ", 700, "x"),
        chain("messages", "()", 700, ""),
        chain("", "(", 1_400, ""),
        chain("", "[", 1_400, ""),
        chain("nope[", "[0]", 480, ""),
        format!("{}{{{{ x{} }}}}{}", "{% if 1 %}".repeat(140), "+1".repeat(700), "{% endif %}".repeat(140)),
        format!("{}{}", "{% if x %}".repeat(3_000), "{% endif %}".repeat(3_000)),
        format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(3_000)),
        format!("{}{}", "{% for a in [1] %}".repeat(149), "{% endfor %}".repeat(149)),
        format!("{{{{ f({}) }}}}", "1,".repeat(49_000)),
    ];
    for template in templates {
        let start: String = template.chars().take(200).collect();
        let got = render(&template, &[user("x")]);
        assert!(got.is_err(), "{start}");
    }
}

#[test]
fn long_conversations_are_not_taken_for_harm() {
    // Far more than any context: 400 turns of 20 kB, with the habits of real templates.
    let template = "{% set ns = namespace(text='', n=0) %}{% for m in messages[::-1][::-1] %}\
                    {% if m.role == 'user' and m.content is string and not '</think>' in m.content %}\
                    {% set ns.n = ns.n + 1 %}{% endif %}\
                    {{ '<|' ~ m.role ~ '|>' + m['content']|trim + '\\n' }}{% endfor %}{{ ns.n }}";
    let messages: Vec<Message> = (0..400)
        .map(|i| Message::new([Role::User, Role::Assistant][i % 2], format!("{i} {}", "word ".repeat(4_000))))
        .collect();
    let expected: String = messages
        .iter()
        .map(|message| format!("<|{}|>{}\n", message.role.name(), message.content.trim()))
        .chain(["200".to_owned()])
        .collect();
    assert_eq!(render(template, &messages).unwrap(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    /// No pieces of template, in whatever order, make the engine panic; each run ends.
    #[test]
    fn any_pieces_render_or_are_refused(pieces in prop::collection::vec(prop::sample::select(vec![
        "{{", "}}", "{%", "%}", "{#", "#}", " x ", "messages", "[", "]", "(", ")", "|", ".", ",", ":", "~", "+", "-", "*", "**", "%",
        "//", "/", "==", "<", " in ", " not ", " is ", " if ", " else ", " for ", "endfor", "endif", " set ", "=", "'a'", "'\\", "\"", "0",
        "-1", "9223372036854775807", "1.5", "none", "true", "{% raw %}", "{% endraw %}", "{% generation %}", "{% endgeneration %}",
        "{% for m in messages %}", "{% endfor %}", "{% if x %}", "{% elif 1 %}", "{% else %}", "{% endif %}", "{% macro m(a) %}",
        "{% endmacro %}", "m(1)", "loop", "namespace(a=1)", "length", "join", "tojson", "trim", "split(", "strip()", "[::-1]", "[1:]",
        "{% set y = x %}", "{% break %}", "{{- 1 -}}", "\n", "\r\n", "  ", "é", "\u{1c}", "range(5)", "items()", "default(1)", "recursive",
    ]), 0..40)) {
        let template: String = pieces.concat();
        let _ = render(&template, &conversation());
        // The same inside one tag, so that more of it is an expression.
        let _ = render(&format!("{{{{ {template} }}}}"), &conversation());
    }

    /// Text without tags comes out as it went in, but for line ends.
    #[test]
    fn text_is_text(text in "[^{}\r]{0,200}", content in any::<String>()) {
        let template = compile(&format!("{text}{{{{ messages[0].content }}}}")).unwrap();
        let got = template.render(&[user(&content)], false, &RenderOptions::default()).unwrap();
        prop_assert_eq!(got, format!("{text}{content}"));
    }
}

#[test]
fn a_system_message_that_is_refused_goes_to_the_user_and_it_is_said() {
    let options = RenderOptions::default();
    let body = "{% for m in messages %}[{{ m.role }}:{{ m.content }}]{% endfor %}";
    let refusing = compile(&format!(
        "{{% if messages[0].role == 'system' %}}{{{{ raise_exception('no system') }}}}{{% endif %}}{body}"
    ))
    .unwrap();
    let messages = [system("S"), user("U"), assistant("A"), user("V")];
    let error = refusing.render(&messages, true, &options).unwrap_err();
    assert_eq!(error.to_string(), "a test: the chat template, line 1 refuses the conversation: no system");
    assert!(error.help().is_some());
    let rendered = refusing.render_with_fallback(&messages, true, &options).unwrap();
    assert_eq!(rendered.text, "[user:S\n\nU][assistant:A][user:V]");
    assert_eq!(rendered.system_folded, Some(SystemFolded::Refused("no system".to_owned())));

    // Passed over in silence.
    let ignoring = compile(&body.replace("messages %}", "messages if m.role != 'system' %}")).unwrap();
    let rendered = ignoring.render_with_fallback(&messages, true, &options).unwrap();
    assert_eq!(rendered.text, "[user:S\n\nU][assistant:A][user:V]");
    assert_eq!(rendered.system_folded, Some(SystemFolded::Ignored));

    // Kept: nothing is moved.
    let keeping = compile(body).unwrap();
    let rendered = keeping.render_with_fallback(&messages, true, &options).unwrap();
    assert_eq!(rendered.text, "[system:S][user:U][assistant:A][user:V]");
    assert_eq!(rendered.system_folded, None);
    let plain = refusing.render_with_fallback(&messages[1..], true, &options).unwrap();
    assert_eq!(plain, Rendered { text: "[user:U][assistant:A][user:V]".to_owned(), system_folded: None });

    // Nobody to give it to, another reason, or a broken template: the first error is told.
    assert!(refusing.render_with_fallback(&messages[..1], true, &options).is_err());
    let never = compile("{{ raise_exception('never') }}").unwrap();
    let error = never.render_with_fallback(&messages, true, &options).unwrap_err().to_string();
    assert!(error.ends_with("refuses the conversation: never"), "{error}");
    let broken = compile("{{ nothing.at.all }}").unwrap();
    assert!(broken.render_with_fallback(&messages, true, &options).is_err());
}

#[test]
fn bos_is_seen_where_the_template_writes_it() {
    let template = compile("{{ bos_token }}{{ messages[0].content }}").unwrap();
    let text = template.render(&[user("x")], true, &RenderOptions::default()).unwrap();
    assert_eq!(text, "<s>x");
    assert!(template.starts_with_bos(&text));
    assert!(!template.starts_with_bos("x<s>"));
    let without = ChatTemplate::new(
        "{{ bos_token is defined }}{{ eos_token }}".to_owned(),
        String::new(),
        "E".to_owned(),
        "a test".to_owned(),
    )
    .unwrap();
    let text = without.render(&[], true, &RenderOptions::default()).unwrap();
    assert_eq!(text, "FalseE");
    assert!(!without.starts_with_bos(&text));
}

#[test]
fn thinking_is_found_by_rendering() {
    let thinking =
        |template: &str| thinking_markers(template).map(|found| (found.open, found.opens_in_prompt));
    let loop_ = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}";
    // Nothing about thinking, and a template that only mentions it in a comment.
    assert_eq!(thinking(loop_), None);
    assert_eq!(
        thinking(&format!("{{# <think> #}}{loop_}{{% if add_generation_prompt %}}<|a|>{{% endif %}}")),
        None
    );
    // The prompt opens a block; it closes one again; it does so only if asked.
    let prompt = |text: &str| format!("{loop_}{{% if add_generation_prompt %}}<|a|>{text}{{% endif %}}");
    assert_eq!(thinking(&prompt("<think>\n")), Some(("<think>".to_owned(), true)));
    assert_eq!(thinking(&prompt("<think>\n\n</think>\n\n")), Some(("<think>".to_owned(), false)));
    let switch =
        "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}";
    assert_eq!(thinking(&prompt(switch)), Some(("<think>".to_owned(), false)));
    let switch = "{% if enable_thinking is not defined or enable_thinking %}[THINK]{% endif %}";
    assert_eq!(thinking(&prompt(switch)), Some(("[THINK]".to_owned(), true)));
    let off = RenderOptions { enable_thinking: Some(false), ..RenderOptions::default() };
    assert!(!compile(&prompt(switch)).unwrap().thinking(&off).unwrap().opens_in_prompt);
    // Earlier reasoning is forgotten.
    let forgets = loop_.replace("m.content", "m.content.split('</think>')[-1]");
    assert_eq!(thinking(&forgets), Some(("<think>".to_owned(), false)));
    // Forgetting every earlier answer is no sign.
    let forgets_all = loop_.replace("{{ m.content }}", "{% if m.role == 'user' %}{{ m.content }}{% endif %}");
    assert_eq!(thinking(&forgets_all), None);
    assert_eq!(thinking("{% broken"), None);
}

#[test]
fn a_folders_template_is_found_where_transformers_finds_it() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let find = || ChatTemplate::from_settings(folder.path(), "<s>", "</s>");
    let text = || find().unwrap().map(|found| found.render(&[], false, &RenderOptions::default()).unwrap());
    assert_eq!(text(), None);
    write("chat_template.json", r#"{"chat_template": "processor"}"#);
    assert_eq!(text().as_deref(), Some("processor"));
    write("tokenizer_config.json", r#"{"chat_template": null}"#);
    assert_eq!(text().as_deref(), Some("processor"));
    write(
        "tokenizer_config.json",
        r#"{"pad_token": {"content": "<pad>"}, "unk_token": "<unk>", "chat_template": "{{ bos_token }}{{ pad_token }}{{ unk_token }}{{ sep_token }}"}"#,
    );
    assert_eq!(text().as_deref(), Some("<s><pad><unk>"));
    assert!(find().unwrap().unwrap().origin().ends_with("tokenizer_config.json: `chat_template`"));
    write(
        "tokenizer_config.json",
        r#"{"chat_template": [{"name": "rag", "template": "r"}, {"name": "default", "template": "d"}]}"#,
    );
    assert_eq!(text().as_deref(), Some("d"));
    write("tokenizer_config.json", r#"{"chat_template": [{"name": "rag", "template": "r"}]}"#);
    assert!(find().unwrap_err().to_string().contains("none is the default: `rag`"));
    for wrong in [r#"{"chat_template": 7}"#, r#"{"chat_template": [7]}"#, "{", r#"{"chat_template": "{{"}"#] {
        write("tokenizer_config.json", wrong);
        assert!(find().is_err(), "{wrong}");
    }
    write("tokenizer_config.json", r#"{"chat_template": "config"}"#);
    write("chat_template.jinja", "own file\n");
    assert_eq!(text().as_deref(), Some("own file"));
    assert!(find().unwrap().unwrap().origin().ends_with("chat_template.jinja"));
    let gguf =
        ChatTemplate::from_gguf("{{ nope( }}", "<s>", "</s>", Path::new("a.gguf")).unwrap_err().to_string();
    assert!(
        gguf.starts_with("a.gguf: `tokenizer.chat_template`: the chat template, line 1 cannot"),
        "{gguf}"
    );
}
