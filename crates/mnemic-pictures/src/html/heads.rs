//! Attention maps of all heads: an overview, and one map that a script draws from the numbers on the page.

use crate::text::{clean, escape};
use crate::{HeadMaps, Result};

/// Draws the maps; on the page once.
pub(super) const SCRIPT: &str = include_str!("heads.js");
/// Its styles, on pages that have maps of heads.
pub(super) const STYLE: &str = include_str!("heads.css");

/// Digits of the weights, which are whole thousandths: two digits of base 64 a weight.
const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Writes maps that have been validated; `id` is unique on the page.
pub(super) fn heads(maps: &HeadMaps, id: usize, out: &mut String) -> Result<()> {
    put!(out, "<section class=\"heads\" id=\"heads-{id}\"><h2>{}</h2>\n", escape(&maps.title));
    if maps.rows.is_empty() || maps.cols.is_empty() {
        out.push_str("<p class=\"quiet\">The maps have no cells.</p></section>\n");
        return Ok(());
    }
    out.push_str("<noscript><p class=\"quiet\">The maps need JavaScript.</p></noscript>\n");
    put!(
        out,
        "<div class=\"pick\"><label>Layer <select class=\"layer\"></select></label>\
         <label>Head <select class=\"head\"></select></label>\
         <label><input type=\"checkbox\" class=\"stretch\"/> colours up to each head&#39;s largest weight</label></div>\n\
         <div class=\"scroll\"><canvas class=\"one\" tabindex=\"0\" role=\"img\" \
         aria-describedby=\"heads-{id}-said\"></canvas></div>\n\
         <p class=\"said\" id=\"heads-{id}-said\" aria-live=\"polite\"></p>\n"
    );
    out.push_str("<div class=\"key\">");
    let ticks = ["0", ".25", ".5", ".75", "1"].map(String::from);
    super::legend(crate::colour::Ramp::Sequential, "weight", &ticks, out);
    out.push_str("</div></div>\n");
    put!(
        out,
        "<h3>All heads</h3>\n<p class=\"quiet\">A row of maps for each layer, a map for each head: choose one to enlarge it.</p>\n\
         <div class=\"scroll all\" role=\"group\" aria-label=\"All heads\"></div>\n\
         <script type=\"application/json\">{}</script></section>\n",
        data(maps)?
    );
    Ok(())
}

/// The numbers as JSON in which no name can end the element.
fn data(maps: &HeadMaps) -> Result<String> {
    let names = |names: &[String]| names.iter().map(|name| clean(name)).collect::<Vec<_>>();
    let layers: Vec<_> = maps
        .layers
        .iter()
        .map(|layer| {
            let heads: Vec<_> = layer.heads.iter().map(|head| thousandths(head)).collect();
            serde_json::json!({"name": clean(&layer.name), "heads": heads})
        })
        .collect();
    let json = serde_json::to_string(&serde_json::json!({
        "row_label": clean(&maps.row_label),
        "col_label": clean(&maps.col_label),
        "rows": names(&maps.rows),
        "cols": names(&maps.cols),
        "layers": layers,
    }))?;
    let safe = [('<', "\\u003c"), ('>', "\\u003e"), ('&', "\\u0026")];
    Ok(safe.iter().fold(json, |json, (bad, good)| json.replace(*bad, good)))
}

fn thousandths(weights: &[f32]) -> String {
    let digit = |n: usize| char::from(DIGITS[n % 64]);
    let pair = |&w: &f32| {
        let n = (w.clamp(0.0, 1.0) * 1000.0).round() as usize;
        [digit(n / 64), digit(n)]
    };
    weights.iter().flat_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_two_digits_each() {
        // 0; 1 = 0 * 64 + 1; 64 = 1 * 64 + 0; 1000 = 15 * 64 + 40.
        assert_eq!(thousandths(&[0.0, 0.001, 0.0638, 1.0, 1.0004]), "AAABBAPoPo");
        assert_eq!(thousandths(&[0.0004, -0.0001]), "AAAA");
    }
}
