//! What a model watched, as pictures over time.

use candle_core::Tensor;
use mnemic_models::{Watched, softmax};
use mnemic_pictures::{HeatMap, Scale};

use crate::Result;

pub(super) fn sigmoid(scores: &Tensor) -> Result<Tensor> {
    Ok((scores.neg()?.exp()? + 1.)?.recip()?)
}

/// `(t, width)` turned round to one row a channel; steps that are left out are no numbers.
pub(super) fn channels(
    values: &[f32],
    t: usize,
    width: usize,
    shown: impl Fn(usize) -> bool,
) -> Vec<Vec<f32>> {
    let at = |channel: usize, step: usize| match shown(step) {
        true => values[step * width + channel],
        false => f32::NAN,
    };
    (0..width).map(|channel| (0..t).map(|step| at(channel, step)).collect()).collect()
}

pub(super) fn over_time(title: &str, rows: &str, values: Vec<Vec<f32>>, scale: Scale) -> HeatMap {
    let steps = values.first().map_or(0, Vec::len);
    HeatMap {
        title: title.to_string(),
        row_label: rows.to_string(),
        col_label: "time step".to_string(),
        rows: (0..values.len()).map(|i| i.to_string()).collect(),
        cols: (0..steps).map(|i| i.to_string()).collect(),
        values: values.into_iter().flatten().collect(),
        scale,
    }
}

/// How what is watched under a name is drawn.
struct Look {
    /// What stands beside each other on the second of three axes, a picture each.
    one: &'static str,
    /// A row of a picture.
    row: &'static str,
    /// A column of a picture.
    column: &'static str,
    scale: Scale,
    /// What brings the numbers into their range, where they are watched before it.
    range: fn(&Tensor) -> Result<Tensor>,
    /// Names of the rows, where they have some, by their number.
    names: fn(usize) -> Vec<String>,
    /// Of a matrix that is shown after the last step only, what its columns are.
    last: Option<&'static str>,
}

impl Look {
    fn of(name: &str, rank: usize) -> Self {
        let plain = Self {
            one: "head",
            row: if rank == 3 { "slot" } else { "place" },
            column: "time step",
            scale: Scale::Unit,
            range: |values| Ok(values.clone()),
            names: |_| vec![],
            last: None,
        };
        match name {
            "memory" => Self { scale: Scale::Diverging, last: Some("number"), ..plain },
            "link" => Self { last: Some("slot written before"), ..plain },
            "actions" => Self { one: "stack", row: "action", ..plain },
            // What stands on stacks lies between -1 and 1.
            "tops" => Self { row: "stack", scale: Scale::Diverging, ..plain },
            "values" => Self { row: "stack", ..plain },
            "gates" => Self { row: "gate", range: sigmoid, names: gates, ..plain },
            "read_modes" => {
                let names = |_| ["backward", "content", "forward"].map(String::from).to_vec();
                Self { row: "mode", range: |values| Ok(softmax(values)?), names, ..plain }
            }
            "input_head" | "memory_head" => Self { row: "cell", ..plain },
            "attention" | "leaf_weights" => Self { row: "step read", ..plain },
            _ if name.starts_with("readout_weights") => {
                Self { row: "place in the window", ..plain }
            }
            _ if name.starts_with("summary_weights") => {
                Self { row: "child", column: "window", ..plain }
            }
            _ => plain,
        }
    }
}

/// The gates of a DNC: one a read head, then for allocation, then for writing.
fn gates(count: usize) -> Vec<String> {
    let free = (1..=count.saturating_sub(2)).map(|head| format!("free {head}"));
    free.chain(["allocation".into(), "write".into()]).collect()
}

/// One map for each head of each weighting, and matrices after the last step.
pub(super) fn watched(trace: &[Watched]) -> Result<Vec<HeatMap>> {
    let mut names: Vec<&str> = vec![];
    for entry in trace {
        if !names.contains(&entry.name.as_str()) {
            names.push(&entry.name);
        }
    }
    let mut maps = vec![];
    for name in names {
        let values: Vec<&Tensor> =
            trace.iter().filter(|entry| entry.name == name).map(|entry| &entry.value).collect();
        let rank = values.first().map_or(0, |first| first.rank());
        let (look, title) = (Look::of(name, rank), name.replace('_', " "));
        match (rank, look.last) {
            (3, Some(columns)) => maps.extend(last(&title, columns, look.scale, &values)?),
            (3, None) => maps.extend(heads(&title, &look, &values)?),
            (2, _) => {
                let columns = values.iter().map(|v| numbers(&look, &v.get(0)?));
                maps.push(drawn(&title, &look, &columns.collect::<Result<Vec<_>>>()?));
            }
            _ => {}
        }
    }
    Ok(maps)
}

fn numbers(look: &Look, values: &Tensor) -> Result<Vec<f32>> {
    Ok((look.range)(values)?.to_vec1::<f32>()?)
}

/// A column a step.
fn drawn(title: &str, look: &Look, columns: &[Vec<f32>]) -> HeatMap {
    let mut map = over_time(title, look.row, aligned(columns), look.scale);
    map.col_label = look.column.to_string();
    let names = (look.names)(map.rows.len());
    if names.len() == map.rows.len() {
        map.rows = names;
    }
    map
}

/// Weightings `(1, heads, n)` of every step.
fn heads(title: &str, look: &Look, values: &[&Tensor]) -> Result<Vec<HeatMap>> {
    let count = values.first().map_or(Ok(0), |first| first.dim(1))?;
    let head = |head: usize| -> Result<HeatMap> {
        let columns = values.iter().map(|v| numbers(look, &v.get(0)?.get(head)?));
        let title = match count {
            1 => title.to_string(),
            _ => format!("{title}, {} {}", look.one, head + 1),
        };
        Ok(drawn(&title, look, &columns.collect::<Result<Vec<_>>>()?))
    };
    (0..count).map(head).collect()
}

/// Columns as rows over time. Where they grow at both ends, by two a step, the middle stays where it is; places that are not there yet are no
/// numbers.
fn aligned(columns: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let most = columns.iter().map(Vec::len).max().unwrap_or(0);
    let both_ends = columns.len() > 1
        && columns.iter().enumerate().all(|(step, column)| column.len() == 2 * (step + 1));
    let place = |column: &Vec<f32>, row: usize| {
        let below = if both_ends { (most - column.len()) / 2 } else { 0 };
        row.checked_sub(below).and_then(|i| column.get(i)).copied().unwrap_or(f32::NAN)
    };
    (0..most).map(|row| columns.iter().map(|column| place(column, row)).collect()).collect()
}

/// A matrix `(1, n, w)` of slots after the last step.
fn last(title: &str, columns: &str, scale: Scale, values: &[&Tensor]) -> Result<Option<HeatMap>> {
    let Some(matrix) = values.last() else { return Ok(None) };
    let rows = matrix.get(0)?.to_vec2::<f32>()?;
    let width = rows.first().map_or(0, Vec::len);
    Ok(Some(HeatMap {
        title: format!("{title} after the last step"),
        row_label: "slot".to_string(),
        col_label: columns.to_string(),
        rows: (0..rows.len()).map(|i| i.to_string()).collect(),
        cols: (0..width).map(|i| i.to_string()).collect(),
        values: rows.into_iter().flatten().collect(),
        scale,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_that_grow_at_both_ends_keep_their_middle() {
        let columns = vec![vec![1., 2.], vec![3., 4., 5., 6.]];
        let rows = aligned(&columns);
        let shown: Vec<Vec<Option<f32>>> = rows
            .iter()
            .map(|row| row.iter().map(|x| (!x.is_nan()).then_some(*x)).collect())
            .collect();
        let expected =
            [[None, Some(3.)], [Some(1.), Some(4.)], [Some(2.), Some(5.)], [None, Some(6.)]];
        assert_eq!(shown, expected.map(|row| row.to_vec()));
        let rows = aligned(&[vec![1.], vec![2., 3.]]);
        assert!(rows[0] == [1., 2.] && rows[1][0].is_nan() && rows[1][1] == 3.);
    }

    #[test]
    fn gates_and_modes_have_their_names_and_ranges() {
        let at = |name: &str, value: &[f32]| Watched {
            name: name.into(),
            step: 0,
            value: Tensor::from_slice(value, (1, value.len()), &candle_core::Device::Cpu).unwrap(),
        };
        let modes = at("read_modes", &[0., 0., 0.]);
        let modes = Watched { value: modes.value.unsqueeze(0).unwrap(), ..modes };
        let maps = watched(&[at("gates", &[0., 90., -90.]), modes]).unwrap();
        assert_eq!(maps[0].rows, ["free 1", "allocation", "write"]);
        assert_eq!((maps[0].values[0], maps[0].values[1]), (0.5, 1.));
        assert_eq!(maps[1].rows, ["backward", "content", "forward"]);
        assert!((maps[1].values[0] - 1. / 3.).abs() < 1e-6);
    }
}
