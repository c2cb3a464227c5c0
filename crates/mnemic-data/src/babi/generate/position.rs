//! Places and figures relative to one another: tasks 4, 17 and 19.
//!
//! All three describe a small tree. Its edges are told in the order and direction of a random walk
//! of attention: a node is drawn, then one of its neighbours, and their relation is told if it has
//! not been yet. So leaves come early, and more often than not they are the subject of the sentence
//! (in task 17 the object).

use super::draft::Draft;
use super::draws::Draws;
use super::entities::Cast;

/// Directions; the opposite of `d` is `d ^ 1`.
const COMPASS: [&str; 4] = ["north", "south", "east", "west"];
const LETTERS: [&str; 4] = ["n", "s", "e", "w"];
const RELATIONS: [&str; 4] = ["above", "below", "to the right of", "to the left of"];
/// Steps right and up.
const STEPS: [(i32, i32); 4] = [(0, 1), (0, -1), (1, 0), (-1, 0)];
/// Questions of a story of task 17.
const POSITION_QUESTIONS: usize = 8;

/// Node `a` lies in direction `direction` of node `b`.
#[derive(Debug, Clone, Copy)]
struct Edge {
    a: usize,
    direction: usize,
    b: usize,
}

impl Edge {
    fn flipped(self) -> Self {
        Self { a: self.b, direction: self.direction ^ 1, b: self.a }
    }
}

/// Orders and directs the edges of a tree; each is returned with its index in `edges`.
fn arrange(nodes: usize, edges: &[Edge], draws: &mut Draws) -> Vec<(usize, Edge)> {
    let mut told: Vec<(usize, Edge)> = Vec::with_capacity(edges.len());
    while told.len() < edges.len() {
        let node = draws.below(nodes);
        let own = edges.iter().enumerate().filter(|(_, e)| e.a == node || e.b == node);
        let Some((index, &edge)) = draws.choose(own) else { continue };
        if told.iter().all(|&(other, _)| other != index) {
            told.push((index, if edge.a == node { edge } else { edge.flipped() }));
        }
    }
    told
}

/// Task 4: two sentences about three places in a row, a question that one of them answers.
///
/// The answer is the subject of that sentence. The question repeats its direction ("What is north of
/// the B?") or turns it round ("What is the B south of?").
pub(super) fn two_arguments(cast: &Cast, draws: &mut Draws, draft: &mut Draft) {
    let places = draws.sample(cast.places.len(), 3);
    let name = |node: usize| &cast.places[places[node]];
    let direction = draws.pick(&[0, 2]);
    let edges = [Edge { a: 0, direction, b: 1 }, Edge { a: 1, direction, b: 2 }];
    let told: Vec<(Edge, u32)> = arrange(3, &edges, draws)
        .into_iter()
        .map(|(_, e)| {
            let relation = COMPASS[e.direction];
            (e, draft.say(format!("The {} is {relation} of the {}.", name(e.a), name(e.b))))
        })
        .collect();
    let (edge, line) = draws.pick(&told);
    let text = if draws.coin() {
        format!("What is {} of the {}?", COMPASS[edge.direction], name(edge.b))
    } else {
        format!("What is the {} {} of?", name(edge.b), COMPASS[edge.direction ^ 1])
    };
    draft.ask(text, name(edge.a), vec![line]);
}

/// Task 17: a figure between two others that lie on different sides of it, then eight yes/no
/// questions about the outer two, the answers even. Not above, if level with.
pub(super) fn shapes(cast: &Cast, draws: &mut Draws, draft: &mut Draft) {
    let figures = draws.sample(cast.figures.len(), 3);
    let name = |node: usize| &cast.figures[figures[node]];
    // Nodes 0 and 1 lie around node 2.
    let sides = draws.sample(STEPS.len(), 2);
    let edges = [0, 1].map(|node| Edge { a: node, direction: sides[node], b: 2 });
    let mut lines = [0; 2];
    for (index, edge) in arrange(3, &edges, draws) {
        // The node drawn first is the object here.
        let e = edge.flipped();
        let relation = RELATIONS[e.direction];
        let text = format!("The {} is {relation} the {}.", name(e.a), name(e.b));
        lines[index] = draft.say(text);
    }
    for _ in 0..POSITION_QUESTIONS {
        let x = draws.below(2);
        let y = 1 - x;
        let truth = draws.coin();
        let difference =
            |side: fn((i32, i32)) -> i32| side(STEPS[sides[x]]) - side(STEPS[sides[y]]);
        let (right, up) = (difference(|s| s.0), difference(|s| s.1));
        let holds = |&d: &usize| (STEPS[d].0 * right + STEPS[d].1 * up > 0) == truth;
        let Some(d) = draws.choose((0..STEPS.len()).filter(holds)) else { continue };
        let text = format!("Is the {} {} the {}?", name(x), RELATIONS[d], name(y));
        draft.ask_whether(text, truth, vec![lines[x], lines[y]]);
    }
}

/// Task 19: "How do you go from the A to the B?", two steps apart.
///
/// The two steps are never there and back. Each further place is joined to a free side of one of the
/// three on the way, all free sides equally likely; two of them may come to lie on the same spot.
pub(super) fn path(cast: &Cast, draws: &mut Draws, draft: &mut Draft) {
    let count = cast.places.len();
    let places = draws.sample(count, count);
    let name = |node: usize| &cast.places[places[node]];
    let first = draws.below(STEPS.len());
    let second = draws.other(STEPS.len(), first ^ 1);
    // Node 1 lies in the first direction of node 0, node 2 in the second of node 1.
    let mut edges =
        vec![Edge { a: 1, direction: first, b: 0 }, Edge { a: 2, direction: second, b: 1 }];
    let taken = [(0, first), (1, first ^ 1), (1, second), (2, second ^ 1)];
    let free: Vec<(usize, usize)> = (0..3)
        .flat_map(|node| (0..STEPS.len()).map(move |d| (node, d)))
        .filter(|side| !taken.contains(side))
        .collect();
    let chosen = draws.sample(free.len(), count - 3);
    for (extra, &side) in chosen.iter().enumerate() {
        let (b, direction) = free[side];
        edges.push(Edge { a: 3 + extra, direction, b });
    }
    let mut lines = vec![0; edges.len()];
    for (index, e) in arrange(count, &edges, draws) {
        let relation = COMPASS[e.direction];
        lines[index] = draft.say(format!("The {} is {relation} of the {}.", name(e.a), name(e.b)));
    }
    let text = format!("How do you go from the {} to the {}?", name(0), name(2));
    let answer = format!("{},{}", LETTERS[first], LETTERS[second]);
    draft.ask(text, answer, vec![lines[0], lines[1]]);
}
