//! Builds DMN+ from its preset, reads a story with it, shows what every pass attends to, saves the model and loads it.
//!
//! `cargo run -p mnemic-models --example dmn_plus_forward [SEED]`
//!
//! The model is not trained, so its attention is near even and its answer a guess.

use candle_core::{DType, Device};
use mnemic_models::{
    AnyStoryModel, Context, ModelConfig, ParamStore, Pretrained, Sizes, StoryBatch, StoryModel,
    from_pretrained, save_pretrained, softmax,
};

/// Word ids are places in this list; the null word fills padding.
const WORDS: [&str; 9] = ["", "mary", "john", "went", "to", "the", "kitchen", "garden", "where"];

const STORY: [&str; 3] =
    ["mary went to the kitchen", "john went to the garden", "mary went to the garden"];

const QUESTION: &str = "where mary";

fn ids(text: &str) -> Vec<u32> {
    text.split(' ').filter_map(|w| WORDS.iter().position(|x| x == &w)).map(|i| i as u32).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let seed = std::env::args().nth(1).map_or(Ok(1), |text| text.parse())?;
    let sizes = Sizes { vocab_size: WORDS.len(), sentence_len: 5, memory_size: 50 };
    let config = ModelConfig::preset("dmn-plus", "dmn_plus", sizes)?;
    let store = ParamStore::new(seed);
    let model = config.build(store.builder(DType::F32, &Device::Cpu))?;
    println!("{} with {} parameters", config.architecture(), store.num_parameters());

    let story = STORY.map(ids).to_vec();
    let batch = StoryBatch::from_rows(&[story], &[ids(QUESTION)], vec![], &Device::Cpu)?;
    let ctx = Context::eval().watching();
    let logits = model.forward(&batch, &ctx)?.logits;
    for pass in ctx.take_trace() {
        println!("{} of pass {}:", pass.name, pass.step + 1);
        for (sentence, weight) in STORY.iter().zip(&pass.value.to_vec2::<f32>()?[0]) {
            println!("  {weight:.3}  {sentence}");
        }
    }
    let answers = softmax(&logits)?.to_vec2::<f32>()?;
    let best = (1..WORDS.len()).max_by(|&a, &b| answers[0][a].total_cmp(&answers[0][b]));
    if let Some(best) = best {
        println!("{QUESTION}? {} ({:.3})", WORDS[best], answers[0][best]);
    }

    let dir = tempfile::tempdir()?;
    let vocabulary = serde_json::to_string(&WORDS)?;
    save_pretrained::<AnyStoryModel>(dir.path(), &config, &store, &[("vocab.json", &vocabulary)])?;
    let loaded: Pretrained = from_pretrained(dir.path(), DType::F32, &Device::Cpu)?;
    let again = loaded.model.forward(&batch, &Context::eval())?.logits;
    let same = again.to_vec2::<f32>()? == logits.to_vec2::<f32>()?;
    println!("saved, loaded, asked again: {}", if same { "the same answer" } else { "different!" });
    Ok(())
}
