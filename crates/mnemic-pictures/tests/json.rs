//! The versioned JSON document.

mod common;

use common::{long, small};
use mnemic_pictures::{Error, HeatMap, QaTrace, Scale, TraceFile};

#[test]
fn round_trip() {
    let map = HeatMap {
        title: "m".into(),
        rows: vec!["r".into()],
        cols: vec!["a".into(), "b".into()],
        values: vec![0.1, -3.4e38],
        scale: Scale::Diverging,
        ..HeatMap::default()
    };
    let file = TraceFile { traces: vec![small(), long(200, &[1, 2, 3])], heat_maps: vec![map] };
    assert_eq!(TraceFile::from_json(&file.to_json().unwrap()).unwrap(), file);
}

#[test]
fn weights_keep_their_bits() {
    let mut trace = small();
    trace.passes[0].weights = vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    trace.passes[1].weights = vec![1.0 / 3.0, f32::MIN_POSITIVE, 1e-45];
    trace.answers[1].1 = f64::NAN;
    let file = TraceFile { traces: vec![trace.clone()], heat_maps: vec![] };
    let json = file.to_json().unwrap();
    assert!(json.contains("null") && json.contains("\"-inf\""), "{json}");
    let back = TraceFile::from_json(&json).unwrap().traces.remove(0);
    let bits = |t: &QaTrace| -> Vec<u32> {
        t.passes.iter().flat_map(|p| p.weights.iter().map(|w| w.to_bits())).collect()
    };
    assert_eq!(bits(&back), bits(&trace));
    assert!(back.answers[1].1.is_nan());
}

#[test]
fn optional_fields_may_be_left_out() {
    let text = r#"{"format": "mnemic-pictures", "version": 1, "later": {}, "traces": [
        {"title": "t", "model": "m", "sentences": ["a"], "question": "q",
         "passes": [{"name": "hop 1", "weights": [1]}]}]}"#;
    let file = TraceFile::from_json(text).unwrap();
    assert_eq!(file.traces[0].passes[0].weights, [1.0]);
    assert_eq!(file.traces[0].expected, None);
}

#[test]
fn wrong_documents_are_named() {
    let error = |text: &str| TraceFile::from_json(text).unwrap_err();
    let later = error(r#"{"format": "mnemic-pictures", "version": 2, "traces": 7}"#);
    assert!(matches!(later, Error::Version { found: 2 }));
    assert_eq!(
        later.to_string(),
        "expected a mnemic-pictures file of version 1 to 1, got version 2"
    );
    let other = error(r#"{"format": "photo", "version": 1}"#);
    assert!(matches!(other, Error::Format { .. }), "{other}");
    assert!(error("[1, 2").to_string().contains("line 1 column"));
    let wrong = r#"{"format": "mnemic-pictures", "version": 1, "traces": [
        {"title": "t", "model": "m", "sentences": ["a"], "question": "q",
         "passes": [{"name": "hop 1", "weights": [0.5, 0.5]}]}]}"#;
    assert!(matches!(error(wrong), Error::WeightCount { weights: 2, sentences: 1, .. }));
}
