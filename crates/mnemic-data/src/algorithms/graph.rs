//! Questions about random graphs (A. Graves, G. Wayne, M. Reynolds et al., Nature 538, 2016, "Graph experiments").
//!
//! A graph is given edge by edge, as triples (source, edge, destination) of labels below 1,000, each of three digits, a digit as one of ten
//! channels; two more channels say that a step asks and that an answer is expected. Nodes lie at random in a square and have an edge to each of their two
//! nearest neighbours. An answer is a sequence of triples, and each step of it is the 90 channels of one.
//!
//! Where the paper leaves it open, or has what does not fit one length for all rows of a batch: an edge leads to each of two neighbours, where the paper draws the
//! number; a path is up to a third of the nodes long, a shortest one four edges at most; questions about shortest paths have only one; the last triple of an answer is given with the next step,
//! where the paper gives the network's own in a share of the cases.

use super::SequenceBatch;
use crate::sampling::Draws;

/// What is asked. The size is the number of nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Graph {
    /// A node and the labels of the edges to take from it, an edge a step; the triples on the way.
    Traversal,
    /// Two nodes; after ten steps to think, the triples of the only shortest path from the first to the second.
    ShortestPath,
}

/// Digits of a label and of a triple, and channels of one.
const DIGITS: usize = 3;
const TRIPLE: usize = 3 * DIGITS * 10;
/// The channels that say that a step asks, and that an answer is expected.
const ASKS: usize = TRIPLE;
const ANSWERS: usize = TRIPLE + 1;
/// Labels there are.
const LABELS: usize = 1000;
/// Edges that leave a node.
const NEIGHBOURS: usize = 2;
/// Steps to think of a shortest path.
const PLANNING: usize = 10;
/// Edges of a shortest path at most: of more nodes, too, few are farther apart.
const FARTHEST: usize = 4;
/// Nodes at most.
const MOST: usize = 200;

/// Source, label and destination of an edge; in a triple of which a part is asked for, that part is none.
type Triple = [Option<usize>; 3];

/// A node's distance, the number of shortest paths to it, and how the last edge of one of them begins: node and edge.
type Reached = (usize, usize, (usize, usize));

/// A graph: the labels of its nodes, and of each node its edges, label and destination.
struct Drawn {
    nodes: Vec<usize>,
    edges: Vec<[(usize, usize); NEIGHBOURS]>,
}

impl Graph {
    /// Both, with their names in recipes and the least and the most nodes that are trained on.
    pub const ALL: [(&'static str, Self, (usize, usize)); 2] = [
        ("graph-traversal", Self::Traversal, (3, 12)),
        ("shortest-path", Self::ShortestPath, (3, 12)),
    ];

    /// Widths of inputs and outputs.
    pub(super) fn sizes(self) -> (usize, usize) {
        (TRIPLE + 2, TRIPLE)
    }

    /// Whether the task has these sizes.
    pub(super) fn fits(self, (least, most): (usize, usize)) -> bool {
        NEIGHBOURS < least && least <= most && most <= MOST
    }

    /// Sequences about graphs of one number of nodes in the range, with paths of one length.
    pub(super) fn batch(
        self,
        b: usize,
        (least, most): (usize, usize),
        draws: &mut Draws,
    ) -> SequenceBatch {
        let nodes = super::within(draws, (least, most));
        let told = NEIGHBOURS * nodes;
        let (hops, asked) = match self {
            Self::Traversal => (1 + draws.below(nodes / 3), None),
            Self::ShortestPath => (1 + draws.below((nodes / 3).min(FARTHEST)), Some(1 + PLANNING)),
        };
        let asked = asked.unwrap_or(hops);
        let steps = told + asked + hops;
        let mut batch = SequenceBatch::new(b, steps, self.sizes());
        for row in 0..b {
            let (graph, path) = self.draw(nodes, hops, draws);
            let mut edges: Vec<Triple> = graph.triples();
            draws.shuffle(&mut edges);
            for (step, edge) in edges.iter().enumerate() {
                write(edge, batch.input(row, step));
            }
            for (i, question) in self.questions(&path).iter().enumerate() {
                let input = batch.input(row, told + i);
                write(question, input);
                input[ASKS] = 1.;
            }
            for (i, edge) in path.iter().enumerate() {
                let step = told + asked + i;
                write(edge, batch.target(row, step));
                let input = batch.input(row, step);
                input[ANSWERS] = 1.;
                if i > 0 {
                    write(&path[i - 1], input);
                }
            }
        }
        batch.score(told + asked..steps);
        batch
    }

    /// A graph with a path of so many edges.
    fn draw(self, nodes: usize, hops: usize, draws: &mut Draws) -> (Drawn, Vec<Triple>) {
        loop {
            let graph = Drawn::new(nodes, draws);
            let path = match self {
                Self::Traversal => Some(graph.walk(hops, draws)),
                Self::ShortestPath => graph.only_shortest(hops, draws),
            };
            if let Some(path) = path {
                let triples = path.iter().map(|&(node, edge)| graph.triple(node, edge)).collect();
                return (graph, triples);
            }
        }
    }

    fn questions(self, path: &[Triple]) -> Vec<Triple> {
        let (first, last) = (path[0], path[path.len() - 1]);
        match self {
            Self::Traversal => path
                .iter()
                .enumerate()
                .map(|(i, edge)| [if i == 0 { first[0] } else { None }, edge[1], None])
                .collect(),
            Self::ShortestPath => vec![[first[0], None, last[2]]],
        }
    }
}

impl Drawn {
    fn new(n: usize, draws: &mut Draws) -> Self {
        let mut labels = || distinct(n, draws);
        let nodes = labels();
        let points: Vec<[f64; 2]> = (0..n).map(|_| [draws.unit(), draws.unit()]).collect();
        let edges = (0..n).map(|from| {
            let distance = |to: usize| {
                let [dx, dy] = [0, 1].map(|axis| points[to][axis] - points[from][axis]);
                dx * dx + dy * dy
            };
            let mut others: Vec<usize> = (0..n).filter(|&to| to != from).collect();
            others.sort_by(|&a, &b| distance(a).total_cmp(&distance(b)));
            let labels = distinct(NEIGHBOURS, draws);
            std::array::from_fn(|i| (labels[i], others[i]))
        });
        Self { edges: edges.collect(), nodes }
    }

    fn triple(&self, node: usize, edge: usize) -> Triple {
        let (label, to) = self.edges[node][edge];
        [self.nodes[node], label, self.nodes[to]].map(Some)
    }

    fn triples(&self) -> Vec<Triple> {
        let all =
            (0..self.nodes.len()).flat_map(|node| (0..NEIGHBOURS).map(move |edge| (node, edge)));
        all.map(|(node, edge)| self.triple(node, edge)).collect()
    }

    /// Nodes and the edges taken from them.
    fn walk(&self, hops: usize, draws: &mut Draws) -> Vec<(usize, usize)> {
        let mut node = draws.below(self.nodes.len());
        let mut step = || {
            let taken = (node, draws.below(NEIGHBOURS));
            node = self.edges[taken.0][taken.1].1;
            taken
        };
        (0..hops).map(|_| step()).collect()
    }

    /// The only shortest path to a node at this distance from a drawn one, where there is such.
    fn only_shortest(&self, hops: usize, draws: &mut Draws) -> Option<Vec<(usize, usize)>> {
        let n = self.nodes.len();
        let start = draws.below(n);
        let mut found: Vec<Option<Reached>> = vec![None; n];
        found[start] = Some((0, 1, (start, 0)));
        let mut front = vec![start];
        for distance in 1..=hops {
            let mut next = vec![];
            for &node in &front {
                let paths = found[node].map_or(0, |(_, paths, _)| paths);
                for (edge, &(_, to)) in self.edges[node].iter().enumerate() {
                    match &mut found[to] {
                        Some((at, count, _)) if *at == distance => *count += paths,
                        Some(_) => {}
                        None => {
                            found[to] = Some((distance, paths, (node, edge)));
                            next.push(to);
                        }
                    }
                }
            }
            front = next;
        }
        front.retain(|&node| found[node].is_some_and(|(_, paths, _)| paths == 1));
        let mut node = *front.get(draws.below(front.len().max(1)))?;
        let mut path = vec![];
        while node != start {
            let (_, _, taken) = found[node]?;
            path.push(taken);
            node = taken.0;
        }
        path.reverse();
        Some(path)
    }
}

/// Different labels.
fn distinct(count: usize, draws: &mut Draws) -> Vec<usize> {
    let mut labels: Vec<usize> = vec![];
    while labels.len() < count {
        let label = draws.below(LABELS);
        if !labels.contains(&label) {
            labels.push(label);
        }
    }
    labels
}

/// Sets the channels of a triple's digits; what is asked for has none.
fn write(triple: &Triple, channels: &mut [f32]) {
    for (part, label) in triple.iter().enumerate() {
        let Some(label) = label else { continue };
        for (digit, place) in [100, 10, 1].into_iter().enumerate() {
            channels[(part * DIGITS + digit) * 10 + label / place % 10] = 1.;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;
    use crate::algorithms::Algorithm;

    /// The triple in these channels.
    fn read(channels: &[f32]) -> Triple {
        std::array::from_fn(|part| {
            let digits = channels[part * 30..][..30].chunks(10);
            let digits = digits.map(|digit| digit.iter().position(|&x| x == 1.));
            digits.collect::<Option<Vec<_>>>().map(|d| d[0] * 100 + d[1] * 10 + d[2])
        })
    }

    /// Edges, questions and answers of a row.
    fn parts(batch: &SequenceBatch, row: usize) -> (Vec<Triple>, Vec<Triple>, Vec<Triple>) {
        let (mut edges, mut questions, mut answers) = (vec![], vec![], vec![]);
        for step in 0..batch.steps {
            let input = &batch.inputs[(row * batch.steps + step) * 92..][..92];
            let target = &batch.targets[(row * batch.steps + step) * 90..][..90];
            assert_eq!(batch.scored[step], input[ANSWERS] == 1.);
            match (input[ASKS] == 1., input[ANSWERS] == 1.) {
                (true, false) => questions.push(read(input)),
                (false, true) => {
                    let before = answers.last().copied().unwrap_or([None; 3]);
                    assert_eq!(read(input), before);
                    answers.push(read(target));
                }
                _ if input.contains(&1.) => edges.push(read(input)),
                _ => assert!(questions.len() == 1 && answers.is_empty()),
            }
        }
        (edges, questions, answers)
    }

    #[test]
    fn walks_take_the_edges_that_are_asked_for() {
        for number in 0..30 {
            let task = Algorithm::named("graph-traversal").unwrap();
            let batch = task.batch(2, 5, number).unwrap();
            for row in 0..2 {
                let (edges, questions, answers) = parts(&batch, row);
                let nodes: BTreeSet<_> = edges.iter().map(|edge| edge[0]).collect();
                assert_eq!(edges.len(), 2 * nodes.len());
                assert!(answers.iter().all(|edge| edges.contains(edge)));
                assert!(answers.windows(2).all(|pair| pair[0][2] == pair[1][0]));
                assert_eq!(questions[0][0], answers[0][0]);
                let taken = |all: &[Triple]| all.iter().map(|edge| edge[1]).collect::<Vec<_>>();
                assert_eq!(taken(&questions), taken(&answers));
            }
        }
    }

    #[test]
    fn paths_are_the_only_shortest_ones() {
        let mut lengths = BTreeSet::new();
        for number in 0..60 {
            let task = Algorithm::named("shortest-path").unwrap().at(&[12]).unwrap();
            let batch = task.batch(1, 7, number).unwrap();
            let (edges, questions, answers) = parts(&batch, 0);
            let (start, end) = (questions[0][0], questions[0][2]);
            assert_eq!((answers[0][0], answers[answers.len() - 1][2]), (start, end));
            assert!(answers.windows(2).all(|pair| pair[0][2] == pair[1][0]));
            // All walks of as many edges or fewer that reach the end.
            let mut walks = BTreeMap::from([(start, 1usize)]);
            for hop in 1..=answers.len() {
                let mut next = BTreeMap::new();
                for edge in &edges {
                    if let Some(count) = walks.get(&edge[0]) {
                        *next.entry(edge[2]).or_insert(0) += count;
                    }
                }
                let reached = next.get(&end).copied().unwrap_or(0);
                assert_eq!(reached, usize::from(hop == answers.len()), "{number}");
                walks = next;
            }
            lengths.insert(answers.len());
        }
        assert_eq!(lengths, BTreeSet::from([1, 2, 3, 4]));
    }
}
