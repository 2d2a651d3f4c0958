use super::*;

fn refused(syntax: Syntax, text: &str) -> (usize, usize) {
    let misspelt = check(syntax, text.as_bytes()).expect_err(text);
    (misspelt.line, misspelt.column)
}

#[test]
fn what_is_well_written_passes() {
    let good = [
        (Syntax::Json, "{\"a\": [1, 1e999, \"\\u00e4 [ { \\\\\"], \"b\": null}\n"),
        (Syntax::Yaml, "a: &x [1, {b: 2}]\nc: *x\n---\n- two\n"),
        (Syntax::Yaml, ""),
        (Syntax::Toml, "a = 1\n[b]\nc = [1, 2]\n[[d]]\ne = 1979-05-27T07:32:00Z\n"),
        (Syntax::Toml, ""),
        (
            Syntax::Ini,
            "; top\nalone = 1\n[mysqld]\nskip-networking\n!includedir /etc/my.cnf.d\nkey: value\n  goes on\n\
             # more\nlong = one \\\ntwo three four\n[[deep]] ; so\n",
        ),
    ];
    for (syntax, text) in good {
        check(syntax, text.as_bytes()).unwrap_or_else(|error| panic!("{syntax} {text:?}: {error}"));
    }
}

#[test]
fn refusals_name_line_and_column() {
    assert_eq!(refused(Syntax::Json, "{\n  \"a\": 1,\n}\n"), (3, 1));
    assert_eq!(refused(Syntax::Json, "").0, 1);
    assert_eq!(refused(Syntax::Json, "{} {}").0, 1);
    assert_eq!(refused(Syntax::Yaml, "a: 1\nb: [1, 2\nc: 3\n").0, 3);
    assert_eq!(refused(Syntax::Yaml, "a: *nobody\n"), (1, 4));
    assert_eq!(refused(Syntax::Toml, "a = 1\nb = \n"), (2, 5));
    assert_eq!(refused(Syntax::Toml, "a = 1\na = 2\n"), (2, 1));
    assert_eq!(refused(Syntax::Ini, "[a]\n[b\n"), (2, 1));
    assert_eq!(refused(Syntax::Ini, "[a]\nhello out there\n"), (2, 1));
    assert_eq!(refused(Syntax::Ini, "[a]\n\n  = 3\n"), (3, 3));
    assert_eq!(refused(Syntax::Ini, "[a] b\n"), (1, 1));
    assert_eq!(refused(Syntax::Ini, "a\u{1}=1\n"), (1, 2));
    let bytes = check(Syntax::Ini, b"a = 1\nb = \xff\n").expect_err("no text");
    assert_eq!((bytes.line, bytes.column), (2, 5));
    assert!(check(Syntax::Unknown, b"").is_err());
}

#[test]
fn words_fit_one_line_and_secrets_can_be_left_out() {
    let text = "[a]\nhunter2 is the password\n";
    let misspelt = check(Syntax::Ini, text.as_bytes()).expect_err("prose");
    assert_eq!(
        misspelt.to_string(),
        "line 2, column 1: is not ini: is no [section], no key = value and no comment"
    );
    let json = check(Syntax::Json, b"{\"a\": hunter2}").expect_err("no value");
    assert_eq!(json.discreet(), "line 1, column 7: is not json");
    assert!(!json.to_string().contains(" at line "), "{json}");
}

#[test]
fn nesting_and_size_have_bounds() {
    let deep = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
    for syntax in [Syntax::Json, Syntax::Yaml] {
        check(syntax, deep("[", "]", MAX_DEPTH).as_bytes()).expect("as deep as may be");
        check(syntax, deep("[", "]", MAX_DEPTH + 1).as_bytes()).expect_err("deeper");
        check(syntax, deep("[", "", 100_000).as_bytes()).expect_err("deeper, and open");
    }
    check(Syntax::Toml, format!("a = {}", deep("[", "]", 100_000)).as_bytes()).expect_err("deeper");
    check(Syntax::Json, deep("{\"[[\":", "}", 100).replace(":}", ":1}").as_bytes())
        .expect("text does not count");
    for (syntax, most) in [(Syntax::Toml, MAX_TOML), (Syntax::Ini, MAX_CHECKED)] {
        check(syntax, "#\n".repeat(most / 2).as_bytes()).expect("as large as may be");
        check(syntax, "#\n".repeat(most / 2 + 1).as_bytes()).expect_err("larger");
    }
}

/// A bomb of aliases is a short text, and takes no more than its own time.
#[test]
fn aliases_are_not_expanded() {
    let mut bomb = "a0: &a0 [x, x]\n".to_owned();
    for n in 1..1_000 {
        let before = n - 1;
        bomb.push_str(&format!("a{n}: &a{n} [*a{before}, *a{before}]\n"));
    }
    check(Syntax::Yaml, bomb.as_bytes()).expect("is YAML");
}
