//! The language, by its published examples: which labels each matches, how it prints, and where each wrong one is wrong.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::object::{LabelSelector, Operator, Requirement};

fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn parse(text: &str) -> Expr {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// One selector, labels it matches, labels it does not.
type Case = (
    &'static str,
    &'static [&'static [(&'static str, &'static str)]],
    &'static [&'static [(&'static str, &'static str)]],
);

/// Cases of Calico's own tests (libcalico-go/lib/selector) and of its documentation of selectors.
const CASES: &[Case] = &[
    (r#"a == "b""#, &[&[("a", "b")], &[("a", "b"), ("c", "d")]], &[&[], &[("a", "c")], &[("c", "d")]]),
    (
        r#"a == "b" && c == "d""#,
        &[&[("a", "b"), ("c", "d")]],
        &[&[], &[("a", "b"), ("c", "e")], &[("a", "c"), ("c", "d")], &[("c", "d")], &[("a", "b")]],
    ),
    (
        r#"a == "b" || c == "d""#,
        &[&[("a", "b"), ("c", "d")], &[("a", "b")], &[("c", "d")]],
        &[&[], &[("a", "e"), ("c", "e")], &[("c", "e")]],
    ),
    (r#"a in {"'", '"', "c"}"#, &[&[("a", "c")], &[("a", "\"")], &[("a", "'")]], &[&[], &[("a", "e")]]),
    (r#"a not in {"'", '"', "c"}"#, &[&[], &[("a", "e")]], &[&[("a", "c")], &[("a", "\"")]]),
    ("a notin {'c',}", &[&[]], &[&[("a", "c")]]),
    ("a in {}", &[], &[&[], &[("a", "")]]),
    ("a != 'b'", &[&[("a", "a")], &[]], &[&[("a", "b")]]),
    (r#"a contains "a""#, &[&[("a", "a")], &[("a", "bab")]], &[&[], &[("a", "b")], &[("b", "aaa")]]),
    (r#"a starts with "a""#, &[&[("a", "a")], &[("a", "abb")]], &[&[], &[("a", "baa")], &[("b", "aaa")]]),
    (r#"a endswith "a""#, &[&[("a", "a")], &[("a", "bba")]], &[&[], &[("a", "aab")], &[("b", "aaa")]]),
    ("!a in {\"a\"}", &[&[("a", "b")], &[]], &[&[("a", "a")]]),
    ("a in {'a', \"b\"}", &[&[("a", "a")], &[("a", "b")]], &[&[("a", "c")], &[]]),
    (r#"a not in {"d", "e"}"#, &[&[("a", "a")], &[]], &[&[("a", "d")], &[("a", "e")]]),
    ("a not in {}", &[&[], &[("a", "")]], &[]),
    ("has(a)", &[&[("a", "")]], &[&[], &[("b", "a")]]),
    ("!has(a)", &[&[("b", "b")], &[]], &[&[("a", "b")]]),
    ("!!has(b)", &[&[("b", "")]], &[&[("a", "b")]]),
    ("!!! has(a)", &[&[]], &[&[("a", "b")]]),
    ("! !!has(a)", &[&[]], &[&[("a", "b")]]),
    ("!! ! has( a )", &[&[], &[("b", "a")]], &[&[("a", "b")]]),
    ("", &[&[], &[("a", "b")]], &[]),
    (" \t", &[&[], &[("a", "b")]], &[]),
    (" all( )", &[&[], &[("a", "b")]], &[]),
    ("!all()", &[], &[&[], &[("a", "b")]]),
    ("global()", &[&[], &[("a", "b")]], &[]),
    ("a == 'a1' && b != 'b1'", &[&[("a", "a1")]], &[&[("a", "a1"), ("b", "b1")]]),
    ("a != 'a1' && b == 'b1'", &[&[("b", "b1")]], &[&[("a", "a1"), ("b", "b1")]]),
    ("a != 'a1' && b != 'b1'", &[&[], &[("a", "b1")]], &[&[("a", "a1"), ("b", "b1")]]),
    ("a != 'a1' && !b == 'b1'", &[&[], &[("b", "b")]], &[&[("a", "a1"), ("b", "b1")]]),
    ("has(a) && !has(b)", &[&[("a", "a")]], &[&[], &[("a", "a"), ("b", "b")]]),
    ("!has(b) && has(a)", &[&[("a", "a")]], &[&[], &[("a", "a"), ("b", "b")]]),
    ("!(has(b) || !has(a))", &[&[("a", "a")]], &[&[], &[("b", "b")]]),
    ("a == 'a1' || b != 'b1'", &[&[("a", "a1"), ("b", "b1")], &[]], &[&[("b", "b1")]]),
    ("a != 'a1' || b == 'b1'", &[&[("a", "a1"), ("b", "b1")], &[]], &[&[("a", "a1")]]),
    ("a != 'a1' || b != 'b1'", &[&[("a", "a1")], &[]], &[&[("a", "a1"), ("b", "b1")]]),
    ("! a == 'a1' || ! b == 'b1'", &[&[("a", "a1")], &[]], &[&[("a", "a1"), ("b", "b1")]]),
    ("!a == 'a1' && b == 'b1'", &[&[("b", "b1")]], &[&[("a", "a1"), ("b", "b1")], &[]]),
    ("!(!has(a) || has(b))", &[&[("a", "a")]], &[&[], &[("b", "b")], &[("a", "a"), ("b", "b")]]),
    // && binds closer than ||.
    ("has(a) || has(b) && has(c)", &[&[("a", "")], &[("b", ""), ("c", "")]], &[&[("b", "")], &[("c", "")]]),
    ("(has(a) || has(b)) && has(c)", &[&[("a", ""), ("c", "")]], &[&[("a", "")], &[("c", "")]]),
    // Blanks where they need not be, and none where they need not be.
    ("label contains\"value\"", &[&[("label", "a value")]], &[&[]]),
    ("label starts  with 'value'", &[&[("label", "values")]], &[&[("label", "a value")]]),
    ("label ends  with 'value'", &[&[("label", "a value")]], &[&[("label", "values")]]),
    (r#"a notin{"bar"}&&!has(foo)||b in{"c"}"#, &[&[], &[("a", "bar"), ("b", "c")]], &[&[("a", "bar")]]),
    ("has(calico/k8s_NS-.1/role)", &[&[("calico/k8s_NS-.1/role", "")]], &[&[("calico/k8s_ns", "")]]),
    (
        "calico/k8s_ns == 'kube-system' && k8s-app == \"kube-dns\"",
        &[&[("calico/k8s_ns", "kube-system"), ("k8s-app", "kube-dns")]],
        &[&[("k8s-app", "kube-dns")]],
    ),
    // Words that are operators elsewhere are labels here.
    (
        "startswith starts with 's' && endswith ends with 'e'",
        &[&[("startswith", "s"), ("endswith", "e")]],
        &[&[]],
    ),
    (
        "in in {'in'} && contains contains 'x' && not == '1' && has(has)",
        &[&[("in", "in"), ("contains", "x"), ("not", "1"), ("has", "")]],
        &[&[]],
    ),
    (
        "app.kubernetes.io/name=='db'&&has(my-reservation/sales_2)",
        &[&[("app.kubernetes.io/name", "db"), ("my-reservation/sales_2", "")]],
        &[&[]],
    ),
    (
        "deployment == \"development\" && role == 'frontend'",
        &[&[("deployment", "development"), ("role", "frontend")]],
        &[&[("role", "frontend")]],
    ),
];

#[test]
fn every_case_matches_what_it_should_also_once_printed() {
    for (text, matching, other) in CASES {
        let expr = parse(text);
        let printed = parse(&expr.to_string());
        assert_eq!(printed, expr, "{text} is printed as {expr}");
        assert_eq!(printed.to_string(), expr.to_string(), "{text}");
        for (wanted, list) in [(true, matching), (false, other)] {
            for pairs in *list {
                assert_eq!(expr.matches(&labels(pairs)), wanted, "{text} and {pairs:?}");
            }
        }
    }
}

#[test]
fn the_printed_form_is_calicos() {
    for (text, printed) in [
        ("", "all()"),
        (" (all() )", "all()"),
        ("! (has( b)||! has(a ))", "!(has(b) || !has(a))"),
        (r#"! (a == "b"&&! c != "d")"#, r#"!(a == "b" && !c != "d")"#),
        (r#"a == "'""#, r#"a == "'""#),
        (r#"a == '"'"#, r#"a == '"'"#),
        (r#"a startswith '"'"#, r#"a starts with '"'"#),
        (r#"a endswith "'""#, r#"a ends with "'""#),
        (r#"a!='"'"#, r#"a != '"'"#),
        (r#"a in {"z", "z", "x", "y", "x", "a"}"#, r#"a in {"a", "x", "y", "z"}"#),
        (
            "!(!(k == 'v' && has(t) || all()) && (a in {'b', 'c'}))",
            r#"!(!((k == "v" && has(t)) || all()) && a in {"b", "c"})"#,
        ),
    ] {
        assert_eq!(parse(text).to_string(), printed);
    }
}

#[test]
fn an_error_has_a_caret_below_the_character() {
    for (text, position, problem) in [
        ("b == b", 5, "a text in quotes"),
        ("b contains b", 11, "a text in quotes"),
        ("b starts with b", 14, "a text in quotes"),
        ("b ends with b", 12, "a text in quotes"),
        ("label starts foo 'value'", 6, "an operator is missing"),
        ("label ends foo 'value'", 6, "an operator is missing"),
        ("label squiggles 'value'", 6, "an operator is missing"),
        ("a in c", 5, "a set like"),
        ("a ", 2, "==, !=, in"),
        (")", 0, "a label, has()"),
        ("\"FOO", 0, "no closing \""),
        ("\"FOO'", 0, "no closing \""),
        ("'FOO", 0, "no closing '"),
        (r#"a == "b" && %"#, 12, "'%' means nothing"),
        ("'b1' == b", 0, "a label, has()"),
        ("b", 1, "==, !=, in"),
        ("a b", 2, "an operator is missing"),
        ("a inn {'b'}", 2, "an operator is missing"),
        ("a = 'b'", 2, "\"==\" would be right"),
        ("!", 1, "a label, has()"),
        (r#"foo == "bar" &"#, 13, "\"&&\" would be right"),
        (r#"foo == "bar" |"#, 13, "\"||\" would be right"),
        (r#"foo == "bar" baz"#, 13, "&&, || or the end"),
        ("foo != ||", 7, "a text in quotes"),
        (r#"foo in {"", ||"#, 12, "\"}\""),
        (r#"foo in {"a" "b"}"#, 12, "\",\""),
        (r#"foo in """#, 7, "a set like"),
        ("foo == 'FOO\"", 7, "no closing '"),
        ("(", 1, "a label, has()"),
        (r#"(a == "foo""#, 11, "\")\""),
        (r#"a == "foo")"#, 10, "the end"),
        ("()", 1, "a label, has()"),
        ("%", 0, "'%' means nothing"),
        ("a == 'ü' || %", 12, "'%' means nothing"),
        ("has(foo) &&", 11, "the end stands where"),
        ("has(foo, bar)", 7, "takes one label"),
        ("has()", 4, "name is missing"),
        ("all(x)", 4, "takes nothing"),
        ("has (a)", 4, "==, !=, in"),
        ("has(a) &&\nhas(b)", 9, "one line"),
    ] {
        let error = text.parse::<Expr>().expect_err(text);
        assert!(error.position == position && error.problem.contains(problem), "{text}: {error:?}");
        let shown = error.to_string();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert_eq!(lines[1].trim_start(), text.replace('\n', " ").trim_start(), "{shown}");
        assert_eq!(lines[2].chars().count(), position + 3, "{shown}");
    }
}

#[test]
fn an_error_in_a_long_selector_shows_what_is_near() {
    let text = format!("{}%{}", "has(a) && ".repeat(100), " ".repeat(1000));
    let error = text.parse::<Expr>().unwrap_err();
    assert_eq!(error.position, 1000);
    let shown = error.to_string();
    let lines: Vec<_> = shown.lines().collect();
    assert!(lines[1].starts_with("  ...has(a)") && lines[1].ends_with("..."), "{shown}");
    assert_eq!(lines[1].find('%'), lines[2].find('^'), "{shown}");
}

#[test]
fn huge_ones_are_refused_before_they_hurt() {
    let deep = |n: usize| format!("{}all(){}", "(".repeat(n), ")".repeat(n));
    assert_eq!(parse(&deep(MAX_DEPTH)), Expr::All);
    let error = deep(MAX_DEPTH + 1).parse::<Expr>().unwrap_err();
    assert!(error.position == MAX_DEPTH && error.problem.contains("64 deep"), "{error}");
    assert!(" ".repeat(MAX_LENGTH + 1).parse::<Expr>().unwrap_err().problem.contains("65536 bytes"));
    assert!(format!("has({})", "a".repeat(513)).parse::<Expr>().unwrap_err().problem.contains("512"));
    // Any number of "!" is one or none.
    assert_eq!(parse(&format!("{}has(a)", "!".repeat(60_001))), Expr::Not(Box::new(Expr::Has("a".into()))));
    let wide = vec!["has(a)"; 5000].join("||");
    assert!(parse(&wide).matches(&labels(&[("a", "")])));
}

#[test]
fn what_is_unknown_decides_only_where_nothing_else_does() {
    for (text, expected) in [
        ("", Some(true)),
        ("all()", Some(true)),
        ("!all()", Some(false)),
        ("has(a)", None),
        ("!has(a)", None),
        ("a != 'b'", None),
        ("has(a) || all()", Some(true)),
        ("has(a) && all()", None),
        ("has(a) && !all()", Some(false)),
        ("!(has(a) && !all())", Some(true)),
    ] {
        assert_eq!(parse(text).evaluate(&None), expected, "{text}");
    }
}

#[test]
fn label_selectors_mean_the_same_as_expressions() {
    let requirement = |operator, values: &[&str]| Requirement {
        key: "a".into(),
        operator,
        values: values.iter().map(|value| (*value).to_owned()).collect(),
    };
    let expression =
        |requirement| LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() };
    let selectors = [
        (LabelSelector::default(), "all()"),
        (LabelSelector { match_labels: labels(&[("a", "1")]), ..LabelSelector::default() }, r#"a == "1""#),
        (expression(requirement(Operator::In, &["1", "3"])), r#"a in {"1", "3"}"#),
        (expression(requirement(Operator::NotIn, &["1", "3"])), r#"a not in {"1", "3"}"#),
        (expression(requirement(Operator::Exists, &[])), "has(a)"),
        (expression(requirement(Operator::DoesNotExist, &[])), "!has(a)"),
        (
            LabelSelector {
                match_labels: labels(&[("b", "1")]),
                match_expressions: vec![requirement(Operator::Exists, &[])],
            },
            r#"(b == "1" && has(a))"#,
        ),
    ];
    for (selector, printed) in selectors {
        let expr = Expr::from(&selector);
        assert_eq!(expr.to_string(), printed);
        for pairs in [&[][..], &[("a", "1")], &[("a", "2")], &[("b", "1")], &[("a", "2"), ("b", "1")]] {
            let labels = labels(pairs);
            assert_eq!(expr.matches(&labels), selector.matches(&labels), "{printed} and {pairs:?}");
        }
    }
}

#[test]
fn a_selector_keeps_its_text_and_its_error_names_the_place() {
    let selector: Selector = serde_json::from_str(r#""a=='b'""#).unwrap();
    assert_eq!(selector.expr(), &Expr::Equals("a".into(), "b".into()));
    assert_eq!(serde_json::to_string(&selector).unwrap(), r#""a=='b'""#);
    assert!(!selector.is_blank() && Selector::default().is_blank());
    let error = serde_json::from_str::<Selector>(r#""a==b""#).unwrap_err().to_string();
    assert!(error.contains("the label b stands where") && error.contains("a==b\n     ^"), "{error}");
}

fn expression() -> impl Strategy<Value = Expr> {
    let key = || select(vec!["a", "in", "not", "has", "all", "a.b/c-d_e"]).prop_map(str::to_owned);
    let value = || select(vec!["", "v", "a b", "\"", "'", "&& ||", "ü"]).prop_map(str::to_owned);
    let values = || prop::collection::btree_set(value(), 0..3);
    let leaf = prop_oneof![
        Just(Expr::All),
        Just(Expr::Global),
        key().prop_map(Expr::Has),
        (key(), value()).prop_map(|(key, value)| Expr::Equals(key, value)),
        (key(), value()).prop_map(|(key, value)| Expr::NotEquals(key, value)),
        (key(), values()).prop_map(|(key, values)| Expr::In(key, values)),
        (key(), values()).prop_map(|(key, values)| Expr::NotIn(key, values)),
        (key(), value()).prop_map(|(key, value)| Expr::Contains(key, value)),
        (key(), value()).prop_map(|(key, value)| Expr::StartsWith(key, value)),
        (key(), value()).prop_map(|(key, value)| Expr::EndsWith(key, value)),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::And),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Expr::Or),
            inner.prop_map(Expr::negated),
        ]
    })
}

proptest! {
    #[test]
    fn any_expression_reads_back_as_it_is_printed(expr in expression()) {
        prop_assert_eq!(expr.to_string().parse::<Expr>(), Ok(expr));
    }

    #[test]
    fn any_text_is_read_or_its_error_points_into_it(
        text in "([a-c]{1,2}|[ !(){},=&|'\"%ü\t\n]|==|!=|&&|\\|\\||has\\(|all\\(\\)|global\\(\\)| in | not in |contains|starts with){0,12}"
    ) {
        if let Err(error) = text.parse::<Expr>() {
            prop_assert!(error.position <= text.chars().count(), "{:?}: {}", text, error);
            prop_assert_eq!(error.to_string().lines().count(), 3);
        }
    }
}
