//! Pages and standalone pictures: content, escaping, well-formed markup.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod common;

use common::{long, pass, small};
use mnemic_pictures::{
    Curve, Error, Facts, Gate, HeadLayer, HeadMaps, HeatMap, PassTrace, QaTrace, Scale, Section,
    Series, curve_svg, page, svg,
};

const HOSTILE: &str = "<script>alert('x')</script>\"&\u{1b}";

/// Checks that every tag is closed in order, that every attribute is quoted, and that no bare
/// `<`, `>` or `&` is left: strict enough to be XML but for the void tags of HTML.
fn check_markup(html: &str) {
    const VOID: [&str; 2] = ["meta", "!doctype"];
    let body = match (html.find("<style>"), html.find("</style>")) {
        (Some(start), Some(end)) => format!("{}{}", &html[..start], &html[end + 8..]),
        _ => html.to_string(),
    };
    let mut body = body;
    // What is in a script is no markup; that it cannot end the element is checked by whoever wrote it.
    let mut at = 0;
    while let Some(start) = body[at..].find("<script").map(|i| at + i) {
        let inner = start + body[start..].find('>').unwrap() + 1;
        let end = inner + body[inner..].find("</script>").unwrap();
        body.replace_range(inner..end, "");
        at = inner;
    }
    let mut open: Vec<String> = Vec::new();
    let mut rest = body.as_str();
    while let Some(start) = rest.find('<') {
        check_text(&rest[..start]);
        let length = rest[start..].find('>');
        assert!(length.is_some(), "no end of tag: {}", &rest[start..]);
        let end = start + length.unwrap_or(0);
        let tag = &rest[start + 1..end];
        let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or("");
        assert!(
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '!'),
            "tag {tag:?}"
        );
        assert_eq!(tag.matches('"').count() % 2, 0, "quotes in {tag:?}");
        for text in tag.split('"') {
            check_text(text);
        }
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed), "wrong end tag");
        } else if !tag.ends_with('/') && !VOID.contains(&name) {
            open.push(name.into());
        }
        rest = &rest[end + 1..];
    }
    check_text(rest);
    assert!(open.is_empty(), "not closed: {open:?}");
}

fn check_text(text: &str) {
    assert!(!text.contains('>'), "bare > in {text:?}");
    for part in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "#39;"];
        assert!(known.iter().any(|k| part.starts_with(k)), "bare & in {text:?}");
    }
    assert!(text.chars().all(|c| c == '\n' || !c.is_control()), "control character in {text:?}");
}

fn hostile() -> QaTrace {
    QaTrace {
        title: HOSTILE.into(),
        model: HOSTILE.into(),
        task: Some(HOSTILE.into()),
        sentences: vec![HOSTILE.into()],
        question: HOSTILE.into(),
        answers: vec![(HOSTILE.into(), 0.5), ("b".into(), f64::NAN)],
        expected: Some("<b>".into()),
        supports: vec![0],
        passes: vec![pass(HOSTILE, &[f32::NAN])],
    }
}

fn sections() -> Vec<Section> {
    let names = |count: usize| (0..count).map(|i| format!("{HOSTILE}{i}")).collect::<Vec<_>>();
    let map = |rows: usize, cols: usize, scale| HeatMap {
        title: HOSTILE.into(),
        row_label: HOSTILE.into(),
        col_label: HOSTILE.into(),
        rows: names(rows),
        cols: names(cols),
        values: (0..rows * cols).map(|i| if i == 3 { f32::NAN } else { i as f32 - 5.0 }).collect(),
        scale,
    };
    let points = vec![(0.0, 2.0), (1.0, f64::NAN), (2.0, -1.0), (3.0, 0.01), (4.0, 7.0)];
    let curve = Curve {
        title: HOSTILE.into(),
        x_label: HOSTILE.into(),
        y_label: HOSTILE.into(),
        log_y: true,
        series: vec![
            Series { name: HOSTILE.into(), points },
            Series { name: "nothing".into(), points: vec![(f64::INFINITY, 1.0)] },
        ],
    };
    vec![
        Facts { title: HOSTILE.into(), rows: vec![(HOSTILE.into(), HOSTILE.into())] }.into(),
        Curve { series: vec![], ..curve.clone() }.into(),
        Curve { log_y: false, ..curve.clone() }.into(),
        curve.into(),
        map(2, 3, Scale::Diverging).into(),
        map(3, 40, Scale::Auto).into(),
        map(0, 0, Scale::Unit).into(),
        map(0, 7, Scale::Auto).into(),
    ]
}

#[test]
fn hostile_text_is_escaped() {
    let html = page(HOSTILE, HOSTILE, &[hostile(), small()], &sections()).unwrap();
    assert!(!html.contains("<script"));
    assert!(html.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;\u{fffd}"));
    check_markup(&html);
    for section in sections() {
        if let Section::Curve(curve) = section
            && let Some(picture) = curve_svg(&curve)
        {
            check_markup(&picture);
        }
    }
    let picture = svg(&hostile()).unwrap();
    assert!(!picture.contains("<script"));
    check_markup(&picture);
}

#[test]
fn pages_are_self_contained() {
    let html = page("t", "s", &[small()], &sections()).unwrap();
    for outside in ["http:", "https:", "//", "<script", "<link", "@import", "src="] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("light-dark(") && html.contains("@media print"));
}

#[test]
fn every_weight_is_on_the_page() {
    let mut trace = long(200, &[3, 150]);
    for (i, w) in trace.passes[1].weights.iter_mut().enumerate() {
        *w = i as f32 / 1000.0 + 0.0004;
    }
    let html = page("t", "", std::slice::from_ref(&trace), &[]).unwrap();
    check_markup(&html);
    for pass in &trace.passes {
        for (i, w) in pass.weights.iter().enumerate() {
            let title = format!("title=\"sentence {}, {}: {w}", i + 1, pass.name);
            assert_eq!(
                html.matches(&format!("{title}\"")).count()
                    + html.matches(&format!("{title} (highest")).count(),
                1,
                "{title}"
            );
        }
    }
    assert_eq!(html.matches("<th scope=\"row\" class=\"s\">Person").count(), 200);
}

#[test]
fn cells_have_their_colour_value_and_marks() {
    let html = page("t", "", &[small()], &[]).unwrap();
    assert!(html.contains(
        "<td class=\"w c44 top\" title=\"sentence 2, hop 1: 0.875 (highest of the pass)\">.88</td>"
    ));
    assert!(html.contains("<td class=\"w c6\" title=\"sentence 3, hop 1: 0.125\">.12</td>"));
    assert_eq!(html.matches("aria-label=\"supporting fact\"").count(), 2);
    assert!(html.contains("✓ correct") && !html.contains("✗ wrong"));
    assert!(html.contains("style=\"width:75.0%\""));
    let wrong = QaTrace { expected: Some("home".into()), ..small() };
    let html = page("t", "", &[wrong], &[]).unwrap();
    assert!(html.contains("✗ wrong</span>, expected <b>home</b>"));
}

#[test]
fn not_a_number_is_drawn_as_such() {
    let mut trace = small();
    trace.passes[0].weights = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    trace.passes[1].weights = vec![f32::NAN; 3];
    for gate in [Gate::Softmax, Gate::Sigmoid, Gate::Score] {
        trace.passes.iter_mut().for_each(|p| p.gate = gate);
        let html = page("t", "", std::slice::from_ref(&trace), &[]).unwrap();
        assert_eq!(html.matches("<td class=\"w nan\"").count(), 4);
        assert!(html.contains(">NaN</td>") && html.contains("not a number"));
        let picture = svg(&trace).unwrap();
        assert_eq!(picture.matches("fill=\"url(#nan)\"").count(), 4);
        check_markup(&picture);
    }
}

#[test]
fn empty_pages_and_stories() {
    check_markup(&page("", "", &[], &[]).unwrap());
    let html = page("t", "", &[QaTrace::default()], &[]).unwrap();
    check_markup(&html);
    assert!(html.contains("The story has no sentences.") && html.contains("gave no answer"));
    let empty = PassTrace { name: "hop 1".into(), ..PassTrace::default() };
    let picture = svg(&QaTrace { passes: vec![empty], ..QaTrace::default() }).unwrap();
    check_markup(&picture);
    assert!(picture.contains("(no sentences)"));
}

#[test]
fn pictures_of_long_stories_are_folded() {
    let picture = svg(&long(200, &[57])).unwrap();
    check_markup(&picture);
    assert!(picture.contains("… 56 sentences with weight &lt; 0.01 …"));
    assert!(picture.contains("Person 58 went") && !picture.contains("Person 100 went"));
    // Every text says how wide it is, so that another font cannot break the layout.
    assert_eq!(picture.matches("<text").count(), picture.matches("textLength").count());
}

#[test]
fn inconsistent_input_is_refused() {
    let mut trace = small();
    trace.passes[0].weights.push(0.0);
    for error in
        [page("t", "", &[small(), trace.clone()], &[]), svg(&trace)].map(Result::unwrap_err)
    {
        let Error::WeightCount { trace, pass, weights, sentences } = error else {
            panic!("unexpected {error}")
        };
        assert_eq!((trace.as_str(), pass.as_str()), ("Example 1", "hop 1"));
        assert_eq!((weights, sentences), (4, 3));
    }
    let map = HeatMap { rows: vec!["a".into()], ..HeatMap::default() };
    let map = HeatMap { cols: vec!["b".into()], ..map };
    assert!(matches!(
        page("t", "", &[], &[map.into()]),
        Err(Error::CellCount { rows: 1, cols: 1, values: 0, .. })
    ));
}

#[test]
fn many_examples_start_closed() {
    let html = page("t", "", &vec![small(); 9], &[]).unwrap();
    assert_eq!(html.matches("<details class=\"example\">").count(), 7);
    assert_eq!(html.matches("<details class=\"example\" open>").count(), 2);
    assert!(html.contains("9 of 9 answered correctly"));
    for n in 1..=9 {
        assert!(html.contains(&format!("href=\"#example-{n}\"")));
        assert!(html.contains(&format!("id=\"example-{n}\"")));
    }
}

#[test]
fn large_heat_maps_merge_neighbours() {
    let map = |size: usize| HeatMap {
        title: "m".into(),
        rows: (0..size).map(|r| r.to_string()).collect(),
        cols: (0..size).map(|c| c.to_string()).collect(),
        // Rows of one colour, but for one cell.
        values: (0..size * size).map(|i| if i == 7 { 1.0 } else { 0.0 }).collect(),
        ..HeatMap::default()
    };
    let rects = |size: usize| {
        let html = page("t", "", &[], &[map(size).into()]).unwrap();
        check_markup(&html);
        html.matches("class=\"c0\"/>").count() + html.matches("class=\"c0\"><title>").count()
    };
    assert_eq!(rects(100), 100 * 100 - 1);
    // One rectangle a row and one more in the first row, whose run is broken.
    assert_eq!(rects(200), 200 + 1);
}

#[test]
fn curves_have_gaps_where_points_are_missing() {
    let series = Series {
        name: "loss".into(),
        points: vec![(0.0, 1.0), (1.0, 2.0), (2.0, f64::NAN), (3.0, 3.0), (4.0, 1.0)],
    };
    let curve = Curve { title: "c".into(), series: vec![series], ..Curve::default() };
    let html = page("t", "", &[], &[curve.into()]).unwrap();
    let path = html.split("class=\"line s0\" d=\"").nth(2).unwrap().split('"').next().unwrap();
    assert_eq!(path.matches('M').count(), 2, "{path}");
    assert_eq!(path.matches('L').count(), 2, "{path}");
    assert_eq!(html.matches("<circle").count(), 4);
}

#[test]
fn curves_that_no_axis_can_hold_are_not_drawn() {
    for points in [vec![], vec![(f64::NAN, 0.0)], vec![(0.0, f64::MIN), (1.0, f64::MAX)]] {
        let series = vec![Series { name: "s".into(), points }];
        let html = page("t", "", &[], &[Curve { series, ..Curve::default() }.into()]).unwrap();
        check_markup(&html);
        assert!(html.contains("no points that can be drawn"));
    }
}

fn head_maps(rows: &[&str], cols: &[&str], layers: usize, heads: usize) -> HeadMaps {
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    let n = rows.len() * cols.len();
    let head = |h: usize| (0..n).map(|i| ((i + h) % 11) as f32 / 10.0).collect();
    let layer = |l| HeadLayer {
        name: format!("layer {}", l + 1),
        heads: (0..heads).map(|h| head(l + h)).collect(),
    };
    HeadMaps {
        title: "Self-attention".into(),
        row_label: "from".into(),
        col_label: "to".into(),
        rows: names(rows),
        cols: names(cols),
        layers: (0..layers).map(layer).collect(),
    }
}

/// The JSON of the maps on a page.
fn data(html: &str) -> serde_json::Value {
    let json = html.split("<script type=\"application/json\">").nth(1).unwrap();
    serde_json::from_str(json.split("</script>").next().unwrap()).unwrap()
}

#[test]
fn maps_of_heads_are_on_the_page_with_their_script() {
    let mut maps = head_maps(&["[CLS]", "cat"], &["a", HOSTILE, "<b>"], 2, 3);
    maps.title = HOSTILE.into();
    maps.layers[1].name = HOSTILE.into();
    maps.layers[1].heads[2] = vec![0.0, 0.0004, 1.0, 0.0005, 0.064, 1.0003];
    let html = page("t", "", &[], &[maps.clone().into(), maps.into()]).unwrap();
    check_markup(&html);
    let data = data(&html);
    // 0, 0, 1000, 1, 64, 1000 in two digits of base 64 each.
    assert_eq!(data["layers"][1]["heads"][2], "AAAAPoABBAPo");
    assert_eq!(data["layers"][0]["heads"].as_array().unwrap().len(), 3);
    assert_eq!(data["cols"][1], "<script>alert('x')</script>\"&\u{fffd}");
    assert_eq!(data["layers"][1]["name"], data["cols"][1]);
    // Two elements of data and one script, and none that a name has brought.
    assert_eq!(html.matches("<script").count(), 3);
    assert_eq!(html.matches("</script").count(), 3);
    for outside in ["http:", "https:", "<link", "@import", "src=", "fetch("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("id=\"heads-0\"") && html.contains("id=\"heads-1\""));
}

#[test]
fn maps_of_heads_are_compact() {
    let words = ["word"; 30];
    let size =
        |layers| page("t", "", &[], &[head_maps(&words, &words, layers, 12).into()]).unwrap().len();
    // A page has little beside its weights, of two bytes each.
    let bytes = size(12) - size(6);
    assert!(bytes < 6 * 12 * (30 * 30 * 2 + 10), "{bytes}");
}

#[test]
fn maps_of_heads_without_cells_are_no_error() {
    let html = page("t", "", &[], &[head_maps(&[], &["a"], 1, 1).into()]).unwrap();
    check_markup(&html);
    assert!(html.contains("The maps have no cells."));
}

#[test]
fn inconsistent_maps_of_heads_are_refused() {
    let good = head_maps(&["a", "b"], &["c"], 2, 2);
    let error = |maps: HeadMaps| page("t", "", &[], &[maps.into()]).unwrap_err().to_string();
    let mut maps = good.clone();
    maps.layers[1].heads[0].pop();
    let said = error(maps);
    assert!(said.contains("\"layer 2\", head 1") && said.contains("= 2 weights, got 1"), "{said}");
    for weight in [f32::NAN, f32::INFINITY, -0.1, 1.1] {
        let mut maps = good.clone();
        maps.layers[0].heads[1][1] = weight;
        let said = error(maps);
        assert!(said.contains("\"layer 1\", head 2: expected weights from 0 to 1"), "{said}");
    }
    let said = error(HeadMaps { layers: vec![], ..good.clone() });
    assert!(said.contains("\"Self-attention\": expected at least one layer"), "{said}");
    let mut maps = good;
    maps.layers[0].heads.clear();
    assert!(error(maps).contains("\"layer 1\": expected at least one head"));
}

#[test]
fn the_mean_of_heads_is_a_heat_map_of_each_layer() {
    let means = head_maps(&["a", "b"], &["c"], 2, 2).means().unwrap();
    assert_eq!(means.len(), 2);
    assert_eq!(means[1].title, "Self-attention, layer 2 (mean of 2 heads)");
    for (got, want) in means[1].values.iter().zip([0.15, 0.25]) {
        assert!((got - want).abs() < 1e-6, "{got}");
    }
    means.iter().for_each(|map| map.validate().unwrap());
}
