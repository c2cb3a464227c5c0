//! Rules on Rust sources.

use super::Finding;
use super::lexer::{Token, code_only, tokens};
use super::paths::{Kind, Named, paths};

/// What candle offers and a training library must not use, with the reason. A path covers what lies below it.
const BANNED: &[(&str, &str)] = &[
    ("candle_nn::LayerNorm", DROPS_GRADIENTS),
    ("candle_nn::RmsNorm", DROPS_GRADIENTS),
    ("candle_nn::layer_norm", DROPS_GRADIENTS),
    ("candle_nn::layer_norm_no_bias", DROPS_GRADIENTS),
    ("candle_nn::rms_norm", DROPS_GRADIENTS),
    ("candle_nn::rotary_emb", DROPS_GRADIENTS),
    ("candle_nn::ops::softmax_last_dim", DROPS_GRADIENTS),
    ("candle_nn::ops::layer_norm", DROPS_GRADIENTS),
    ("candle_nn::ops::rms_norm", DROPS_GRADIENTS),
    ("candle_nn::ops::sdpa", DROPS_GRADIENTS),
    ("candle_nn::cpu_flash_attention", DROPS_GRADIENTS),
    ("candle_nn::attention::cpu_flash", DROPS_GRADIENTS),
    ("candle_nn::Dropout", UNSEEDED),
    ("candle_nn::ops::Dropout", UNSEEDED),
    ("candle_nn::ops::dropout", UNSEEDED),
    ("candle_nn::VarMap", VAR_MAP),
    ("candle_nn::var_map", VAR_MAP),
    (
        "candle_nn::loss::binary_cross_entropy_with_logit",
        "is infinite at large logits; use the stable loss of mnemic-layers",
    ),
    ("rand::rng", UNSEEDED),
    ("rand::random", UNSEEDED),
    ("rand::thread_rng", UNSEEDED),
];

const DROPS_GRADIENTS: &str = "drops gradients silently; use the differentiable one of mnemic";
const UNSEEDED: &str = "cannot be seeded; draw from a generator that is passed in";
const VAR_MAP: &str = "draws unseeded weights and iterates in random order; use mnemic's own store";

/// Constructors of unseeded random tensors.
const RANDOM_TENSORS: &[&str] =
    &["rand", "randn", "rand_f64", "randn_f64", "rand_like", "randn_like"];

/// The crate that alone may hold `unsafe`, and the one whose helpers may draw unseeded tensors.
const UNSAFE_HOME: &str = "crates/mnemic-kernels/";
const TEST_HELPERS: &str = "crates/mnemic-testing/";

/// How many lines above an `unsafe` block its reason may begin.
const REASON_LINES: usize = 3;

const EXCUSE: &str = "// tidy-allow:";

/// All findings in one source.
pub(super) fn check(path: &str, text: &str) -> Vec<Finding> {
    let code = code_only(text);
    let tokens = tokens(&code);
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    if path.starts_with("crates/") {
        found.extend(banned(path, &paths(&tokens)));
    }
    found.extend(placeholders(path, &tokens));
    found.extend(ignored_examples(path, &lines));
    found.extend(unsafety(path, &tokens, &lines));
    found.retain(|finding| !excused(finding.line, &lines));
    found.extend(empty_excuses(path, &lines));
    found
}

/// Whether the line, or the comment line above it, gives a reason to let it be.
fn excused(line: usize, lines: &[&str]) -> bool {
    let has = |line: &str| line.split_once(EXCUSE).is_some_and(|(_, why)| !why.trim().is_empty());
    let at = |index: usize| lines.get(index).copied().unwrap_or_default();
    let above = line.checked_sub(2).map(at).unwrap_or_default();
    has(at(line.saturating_sub(1))) || (above.trim_start().starts_with(EXCUSE) && has(above))
}

fn empty_excuses(path: &str, lines: &[&str]) -> Vec<Finding> {
    let empty = |line: &&str| line.split_once(EXCUSE).is_some_and(|(_, why)| why.trim().is_empty());
    let numbered = lines.iter().enumerate().filter(|(_, line)| empty(line));
    let message = format!("`{EXCUSE}` needs a reason");
    numbered.map(|(index, _)| Finding::new(path, index + 1, &message)).collect()
}

fn banned(path: &str, named: &[Named]) -> Vec<Finding> {
    let ban_on = |full: &str| BANNED.iter().find(|(ban, _)| covers(ban, full));
    let imports = named.iter().filter(|name| name.kind == Kind::Import);
    let imports: Vec<String> = imports.map(|name| name.segments.join("::")).collect();
    // Where an import is found, the uses of what it brings are not named once more.
    let found_at_import =
        |full: &str| imports.iter().any(|import| covers(import, full) && ban_on(import).is_some());
    let mut found = Vec::new();
    for name in named {
        let full = name.segments.join("::");
        let why = match (name.kind, ban_on(&full)) {
            (Kind::Code, Some(_)) if found_at_import(&full) => continue,
            (Kind::Import | Kind::Code, Some((_, why))) => why,
            (Kind::Import, None) if hides_banned(&full) => "hides what it brings; name the items",
            _ if draws_unseeded(name) && !path.starts_with(TEST_HELPERS) => UNSEEDED,
            _ => continue,
        };
        found.push(Finding::new(path, name.line, format!("`{full}` {why}")));
    }
    found
}

/// Whether `full` is `path` or lies below it.
fn covers(path: &str, full: &str) -> bool {
    full.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A glob over a module that holds something banned.
fn hides_banned(full: &str) -> bool {
    let module = full.strip_suffix("*").filter(|module| module.starts_with("candle_nn::"));
    module.is_some_and(|module| BANNED.iter().any(|(ban, _)| ban.starts_with(module)))
}

fn draws_unseeded(name: &Named) -> bool {
    let (last, before) = match name.segments.as_slice() {
        [.., before, last] => (last.as_str(), before.as_str()),
        [last] => (last.as_str(), ""),
        [] => return false,
    };
    let constructor = ["Tensor", "Var"].contains(&before) && RANDOM_TENSORS.contains(&last);
    let method = name.kind == Kind::Method && ["rand_like", "randn_like"].contains(&last);
    constructor || method || ["from_os_rng", "from_entropy"].contains(&last)
}

/// `todo!`, `unimplemented!` and ignored tests.
fn placeholders(path: &str, tokens: &[Token<'_>]) -> Vec<Finding> {
    let mut found = Vec::new();
    for window in tokens.windows(3) {
        let [first, second, third] = [window[0], window[1], window[2]];
        if ["todo", "unimplemented"].contains(&first.text) && second.text == "!" {
            let message = format!("`{}!` is not finished work", first.text);
            found.push(Finding::new(path, first.line, message));
        }
        if first.text == "#" && second.text == "[" && third.text == "ignore" {
            let message = "ignored test: make it fast or skip it by name when it lacks its data";
            found.push(Finding::new(path, first.line, message));
        }
    }
    found
}

fn ignored_examples(path: &str, lines: &[&str]) -> Vec<Finding> {
    let ignored = |line: &&str| {
        let line = line.trim_start();
        let comment = line.strip_prefix("///").or_else(|| line.strip_prefix("//!"));
        let fence = comment.and_then(|text| text.trim_start().strip_prefix("```"));
        fence.is_some_and(|tags| tags.split(',').any(|tag| tag.trim() == "ignore"))
    };
    let numbered = lines.iter().enumerate().filter(|(_, line)| ignored(line));
    let message = "ignored example: use `no_run`, or `text` when it is no Rust";
    numbered.map(|(index, _)| Finding::new(path, index + 1, message)).collect()
}

fn unsafety(path: &str, tokens: &[Token<'_>], lines: &[&str]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate().filter(|(_, token)| token.text == "unsafe") {
        if !path.starts_with(UNSAFE_HOME) {
            let message = "`unsafe` lives in mnemic-kernels alone";
            found.push(Finding::new(path, token.line, message));
            continue;
        }
        let next = tokens.get(at + 1).map_or("", |next| next.text);
        // Functions state their contract under `# Safety`; the compiler asks for a block inside them.
        if ["{", "impl"].contains(&next) && !has_reason(token.line, lines) {
            let message = "`unsafe` without a comment `SAFETY:` just above it";
            found.push(Finding::new(path, token.line, message));
        }
    }
    found
}

/// Whether `SAFETY:` stands on the line, within the lines just above, or in the comment that ends there.
fn has_reason(line: usize, lines: &[&str]) -> bool {
    let index = line.saturating_sub(1).min(lines.len());
    let near = index.saturating_sub(REASON_LINES);
    let comment = |i: &usize| lines[*i].trim_start().starts_with("//");
    let comment_start = (near..index)
        .rev()
        .find(comment)
        .map_or(index, |last| (0..=last).rev().take_while(comment).last().unwrap_or(last));
    (near.min(comment_start)..=index).any(|i| lines.get(i).is_some_and(|l| l.contains("SAFETY:")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &str = "crates/mnemic-layers/src/norm.rs";
    const KERNEL: &str = "crates/mnemic-kernels/src/scan.rs";

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn operations_that_drop_gradients_are_found_however_they_are_named() {
        for text in [
            "use candle_nn::LayerNorm;",
            "use candle_nn::{Linear, RmsNorm as Norm};",
            "use candle_nn::layer_norm::LayerNormConfig;",
            "fn f() { candle_nn::ops::softmax_last_dim(x) }",
            "use candle_nn::ops; fn f() { ops::rms_norm(x, w, e) }",
            "use candle_nn as nn; fn f() { nn::rotary_emb::rope(x, c, s) }",
            "use candle_nn::*;",
            "use candle_nn::ops::*;",
        ] {
            assert_eq!(lines(LAYER, text), [1], "{text}");
        }
    }

    #[test]
    fn our_own_layers_of_the_same_name_and_sound_operations_pass() {
        for text in [
            "use mnemic_layers::{Dropout, LayerNorm};",
            "use candle_nn::ops; fn f() { ops::softmax(x, 1) }",
            "use crate::ops; fn f() { ops::layer_norm(x) }",
            "use candle_nn::{Embedding, Linear, VarBuilder};",
            "// candle_nn::LayerNorm drops gradients",
            "/// ```\n/// let m = candle_nn::VarMap::new();\n/// ```\nfn f() {}",
            "fn f() { g(\"candle_nn::LayerNorm\") }",
            "fn f() { candle_nn::ops::layer_norm_slow(x) }",
        ] {
            assert!(check(LAYER, text).is_empty(), "{text}: {:?}", check(LAYER, text));
        }
    }

    #[test]
    fn a_banned_import_is_named_once_and_not_at_each_use() {
        let text = "use candle_nn::VarMap;\nfn f() { VarMap::new() }\nfn g() { VarMap::new() }";
        assert_eq!(lines(LAYER, text), [1]);
    }

    #[test]
    fn unseeded_randomness_is_found_outside_the_test_helpers() {
        let text = "use candle_core::Tensor;\nfn f() { Tensor::randn(0f32, 1., 3, &d) }\nfn g() { x.rand_like(0., 1.) }";
        assert_eq!(lines(LAYER, text), [2, 3]);
        assert!(check("crates/mnemic-testing/src/lib.rs", text).is_empty());
        assert_eq!(
            lines(LAYER, "fn f() { rand::rng() }\nfn g() { ChaCha8Rng::from_os_rng() }"),
            [1, 2]
        );
        assert!(check(LAYER, "fn f() { Tensor::zeros(3) }\nfn g() { rand(3) }").is_empty());
    }

    #[test]
    fn an_excuse_needs_a_reason() {
        let good = "use candle_nn::VarMap; // tidy-allow: compares with candle's own store";
        assert!(check(LAYER, good).is_empty());
        let above = "// tidy-allow: compares with candle's own store\nuse candle_nn::VarMap;";
        assert!(check(LAYER, above).is_empty());
        assert_eq!(lines(LAYER, "use candle_nn::VarMap; // tidy-allow:"), [1, 1]);
        // The excuse of one line is not that of the next.
        assert_eq!(lines(LAYER, &format!("{good}\nuse candle_nn::Dropout;")), [2]);
    }

    #[test]
    fn unfinished_work_is_found() {
        assert_eq!(lines(LAYER, "fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }"), [1, 2]);
        assert_eq!(lines("tests/tests/a.rs", "#[test]\n#[ignore = \"slow\"]\nfn f() {}"), [2]);
        assert_eq!(lines(LAYER, "/// ```ignore\n/// f();\n/// ```\nfn f() {}"), [1]);
        assert_eq!(lines(LAYER, "//! ```rust, ignore\n//! ```"), [1]);
        assert!(check(LAYER, "/// ```no_run\n/// ```\nfn todo() {} // todo!()").is_empty());
    }

    #[test]
    fn unsafe_stays_in_the_kernels_with_its_reason() {
        assert_eq!(lines(LAYER, "fn f() { unsafe { g() } }"), [1]);
        assert_eq!(lines("xtask/src/main.rs", "unsafe fn f() {}"), [1]);
        assert!(check(LAYER, "#![deny(unsafe_code)] // unsafe").is_empty());
        assert_eq!(lines(KERNEL, "fn f() {\n    unsafe { g() }\n}"), [2]);
        assert!(
            check(KERNEL, "fn f() {\n    // SAFETY: g needs nothing.\n    unsafe { g() }\n}")
                .is_empty()
        );
        assert!(check(KERNEL, "/// # Safety\n/// AVX2.\nunsafe fn f() {}").is_empty());
        assert_eq!(lines(KERNEL, "unsafe impl Send for A {}"), [1]);
    }

    #[test]
    fn a_reason_may_be_long_but_must_be_near() {
        let long = "// SAFETY: one\n// two\n// three\n// four\n// five\nunsafe { g() }";
        assert!(check(KERNEL, long).is_empty());
        let far = "// SAFETY: one\na();\nb();\nc();\nunsafe { g() }";
        assert_eq!(lines(KERNEL, far), [5]);
        let within = "// SAFETY: one\na();\nb();\nunsafe { g() }";
        assert!(check(KERNEL, within).is_empty());
    }
}
