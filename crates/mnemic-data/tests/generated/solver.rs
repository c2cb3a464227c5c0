//! A solver of all twenty tasks that knows nothing but the text: it parses English statements and
//! replays them. It shares no code with the generator.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

const MOVES: [&str; 5] = ["went back to", "went to", "journeyed to", "travelled to", "moved to"];
const GETS: [&str; 4] = ["picked up", "got", "grabbed", "took"];
const DROPS: [&str; 4] = ["dropped", "left", "discarded", "put down"];
const GIVES: [&str; 3] = ["gave", "handed", "passed"];

/// The answer to a question that follows from some statements (in order), if any does.
pub(crate) fn solve(task: u8, statements: &[&str], question: &str) -> Option<String> {
    let statements: Vec<String> =
        statements.iter().map(|s| s.trim_end_matches('.').to_lowercase()).collect();
    let question = question.trim().trim_end_matches('?').to_lowercase();
    let words: Vec<&str> = question.split(' ').collect();
    match task {
        1..=3 | 5..=8 | 11..=13 => World::replay(&parse_deeds(&statements)?).answer(task, &words),
        4 => two_arguments(&statements, &words),
        9 | 10 => beliefs(&statements, &words),
        14 => time(&statements, &words),
        15 => deduction(&statements, &words),
        16 => induction(&statements, &words),
        17 => position(&statements, &question),
        18 => size(&statements, &question),
        19 => path(&statements, &words),
        20 => motivation(&statements, &words),
        _ => None,
    }
}

/// One event of a world of walking and carrying.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Deed {
    Go(Vec<String>, String),
    Get(String, String),
    Drop(String, String),
    Give(String, String, String),
}

/// Parses the statements of tasks 1–3, 5–8 and 11–13, without `.` and in lower case.
pub(crate) fn parse_deeds(statements: &[String]) -> Option<Vec<Deed>> {
    let mut subjects: Vec<String> = Vec::new();
    statements
        .iter()
        .map(|statement| {
            let text = ["after that ", "following that ", "then ", "afterwards "]
                .iter()
                .find_map(|start| statement.strip_prefix(start))
                .unwrap_or(statement);
            let (first, mut rest) = text.split_once(' ')?;
            let mut who = vec![first.to_string()];
            if let Some(pair) = rest.strip_prefix("and ") {
                let (second, verb) = pair.split_once(' ')?;
                who.push(second.into());
                rest = verb;
            }
            if !["he", "she", "they"].contains(&first) {
                subjects = who;
            }
            parse_deed(&subjects, rest)
        })
        .collect()
}

fn parse_deed(subjects: &[String], rest: &str) -> Option<Deed> {
    let after = |verbs: &[&str]| {
        verbs.iter().find_map(|verb| rest.strip_prefix(verb)?.strip_prefix(" the "))
    };
    let who = subjects.first()?.clone();
    let thing = |text: &str| text.trim_end_matches(" there").to_string();
    if let Some(place) = after(&MOVES) {
        return Some(Deed::Go(subjects.to_vec(), place.into()));
    }
    if let Some(object) = after(&GETS) {
        return Some(Deed::Get(who, thing(object)));
    }
    if let Some(object) = after(&DROPS) {
        return Some(Deed::Drop(who, thing(object)));
    }
    let (object, to) = after(&GIVES)?.split_once(" to ")?;
    Some(Deed::Give(who, object.into(), to.into()))
}

/// What the text gives away about places and holders.
#[derive(Default)]
struct World {
    place: HashMap<String, String>,
    holder: HashMap<String, String>,
    object_place: HashMap<String, String>,
    /// The different places of each object one after the other.
    trail: HashMap<String, Vec<String>>,
    /// Objects in the order in which a person first handled them.
    handled: HashMap<String, Vec<String>>,
    gifts: Vec<(String, String, String)>,
}

impl World {
    fn replay(deeds: &[Deed]) -> Self {
        let mut world = Self::default();
        // Whoever drops an object that was never picked up had it all along.
        let mut touched = BTreeSet::new();
        for deed in deeds {
            match deed {
                Deed::Go(..) => {}
                Deed::Drop(x, o) if touched.insert(o) => {
                    world.holder.insert(o.clone(), x.clone());
                }
                Deed::Get(_, o) | Deed::Drop(_, o) | Deed::Give(_, o, _) => {
                    touched.insert(o);
                }
            }
        }
        for deed in deeds {
            world.apply(deed);
        }
        world
    }

    fn apply(&mut self, deed: &Deed) {
        let mut handle = |x: &String, o: &String| {
            let list = self.handled.entry(x.clone()).or_default();
            if !list.contains(o) {
                list.push(o.clone());
            }
        };
        match deed {
            Deed::Go(people, place) => {
                for person in people {
                    self.place.insert(person.clone(), place.clone());
                }
            }
            Deed::Get(x, o) => {
                handle(x, o);
                self.holder.insert(o.clone(), x.clone());
            }
            Deed::Drop(x, o) => {
                handle(x, o);
                self.holder.remove(o);
                match self.place.get(x) {
                    Some(place) => self.object_place.insert(o.clone(), place.clone()),
                    None => self.object_place.remove(o),
                };
            }
            Deed::Give(x, o, y) => {
                handle(x, o);
                handle(y, o);
                self.holder.insert(o.clone(), y.clone());
                self.gifts.push((x.clone(), o.clone(), y.clone()));
            }
        }
        for (object, holder) in &self.holder {
            if let Some(place) = self.place.get(holder) {
                self.object_place.insert(object.clone(), place.clone());
                let trail = self.trail.entry(object.clone()).or_default();
                if trail.last() != Some(place) {
                    trail.push(place.clone());
                }
            }
        }
    }

    fn answer(&self, task: u8, words: &[&str]) -> Option<String> {
        match (task, words) {
            (1 | 11..=13, ["where", "is", x]) => self.place.get(*x).cloned(),
            (2, ["where", "is", "the", o]) => self.object_place.get(*o).cloned(),
            (3, ["where", "was", "the", o, "before", "the", place]) => {
                let trail = self.trail.get(*o)?;
                let last = trail.iter().rposition(|p| p == place)?;
                trail.get(last.checked_sub(1)?).cloned()
            }
            (5, words) => self.gift(words),
            (6, ["is", x, "in", "the", place]) => Some(yes_no(self.place.get(*x)? == place)),
            (7, ["how", "many", "objects", "is", x, "carrying"]) => {
                let count = self.holder.values().filter(|holder| holder == x).count();
                ["none", "one", "two", "three"].get(count).map(|&number| number.into())
            }
            (8, ["what", "is", x, "carrying"]) => {
                let held: Vec<&str> = self
                    .handled
                    .get(*x)?
                    .iter()
                    .filter(|&o| self.holder.get(o).is_some_and(|holder| holder == x))
                    .map(String::as_str)
                    .collect();
                Some(if held.is_empty() { "nothing".into() } else { held.join(",") })
            }
            _ => None,
        }
    }

    fn gift(&self, words: &[&str]) -> Option<String> {
        let last = |f: &dyn Fn(&(String, String, String)) -> bool| {
            self.gifts.iter().rev().find(|gift| f(gift)).cloned()
        };
        Some(match words {
            ["what", "did", x, "give", "to", y] => last(&|g| g.0 == *x && g.2 == *y)?.1,
            ["who", "gave", "the", o] => last(&|g| g.1 == *o)?.0,
            ["who", "received", "the", o] => last(&|g| g.1 == *o)?.2,
            ["who", "gave", "the", o, "to", y] => last(&|g| g.1 == *o && g.2 == *y)?.0,
            ["who", "did", x, "give", "the", o, "to"] => last(&|g| g.0 == *x && g.1 == *o)?.2,
            _ => return None,
        })
    }
}

fn yes_no(truth: bool) -> String {
    if truth { "yes".into() } else { "no".into() }
}

fn opposite(direction: &str) -> Option<&'static str> {
    Some(match direction {
        "north" => "south",
        "south" => "north",
        "east" => "west",
        "west" => "east",
        _ => return None,
    })
}

/// "the A is DIRECTION of the B" as (A, direction, B).
fn compass(statement: &str) -> Option<(&str, &str, &str)> {
    match statement.split(' ').collect::<Vec<_>>()[..] {
        ["the", a, "is", direction, "of", "the", b] => Some((a, direction, b)),
        _ => None,
    }
}

fn two_arguments(statements: &[String], words: &[&str]) -> Option<String> {
    let (direction, place) = match *words {
        ["what", "is", direction, "of", "the", b] => (direction, b),
        ["what", "is", "the", a, direction, "of"] => (opposite(direction)?, a),
        _ => return None,
    };
    statements.iter().find_map(|statement| {
        let (a, d, b) = compass(statement)?;
        if d == direction && b == place {
            Some(a.into())
        } else if opposite(d)? == direction && a == place {
            Some(b.into())
        } else {
            None
        }
    })
}

fn beliefs(statements: &[String], words: &[&str]) -> Option<String> {
    let ["is", x, "in", "the", place] = *words else { return None };
    let last = statements.iter().rev().find(|s| s.split(' ').next() == Some(x))?;
    let rest = last.strip_prefix(x)?.trim_start();
    if let Some(places) = rest.strip_prefix("is either in the ") {
        let (a, b) = places.split_once(" or the ")?;
        return Some(if place == a || place == b { "maybe".into() } else { "no".into() });
    }
    for negative in ["is not in the ", "is no longer in the "] {
        if let Some(left) = rest.strip_prefix(negative) {
            return (left == place).then(|| "no".into());
        }
    }
    let verb = MOVES.iter().find_map(|verb| rest.strip_prefix(verb)?.strip_prefix(" the "));
    Some(yes_no(verb.or_else(|| rest.strip_prefix("is in the "))? == place))
}

/// A statement of task 14 as (person, time, place).
pub(crate) fn visit(statement: &str) -> Option<(&str, usize, &str)> {
    const TIMES: [&str; 4] = ["yesterday", "this morning", "this afternoon", "this evening"];
    let (time, rest) = TIMES.iter().enumerate().find_map(|(i, time)| {
        let rest = statement.strip_prefix(time).or_else(|| statement.strip_suffix(time))?;
        Some((i, rest.trim()))
    })?;
    let (person, rest) = rest.split_once(' ')?;
    let place = MOVES.iter().find_map(|verb| rest.strip_prefix(verb)?.strip_prefix(" the "))?;
    Some((person, time, place))
}

fn time(statements: &[String], words: &[&str]) -> Option<String> {
    let ["where", "was", x, "before", "the", place] = *words else { return None };
    let visits: Option<Vec<_>> = statements.iter().map(|s| visit(s)).collect();
    let mut own: Vec<_> = visits?.into_iter().filter(|v| v.0 == x).collect();
    own.sort_by_key(|v| v.1);
    let last = own.iter().rposition(|v| v.2 == place)?;
    own.get(last.checked_sub(1)?).map(|v| v.2.to_string())
}

fn deduction(statements: &[String], words: &[&str]) -> Option<String> {
    let ["what", "is", x, "afraid", "of"] = *words else { return None };
    let plural = |singular: &str| match singular {
        "mouse" => "mice",
        "wolf" => "wolves",
        "cat" => "cats",
        _ => "sheep",
    };
    let species = statements.iter().find_map(|s| s.strip_prefix(x)?.strip_prefix(" is a "))?;
    let feared = statements
        .iter()
        .find_map(|s| s.strip_prefix(plural(species))?.strip_prefix(" are afraid of "))?;
    ["mouse", "wolf", "cat", "sheep"].iter().find(|s| plural(s) == feared).map(|&s| s.into())
}

fn induction(statements: &[String], words: &[&str]) -> Option<String> {
    let ["what", "color", "is", x] = *words else { return None };
    let mut species: Vec<(&str, &str)> = Vec::new();
    let mut colours: HashMap<&str, &str> = HashMap::new();
    for statement in statements {
        match statement.split(' ').collect::<Vec<_>>()[..] {
            [name, "is", "a", kind] => species.push((name, kind)),
            [name, "is", colour] => {
                colours.insert(name, colour);
            }
            _ => return None,
        }
    }
    let kind = species.iter().find(|(name, _)| *name == x)?.1;
    let fellows = species.iter().filter(|(name, k)| *k == kind && *name != x);
    fellows.rev().find_map(|(name, _)| colours.get(name)).map(|&colour| colour.into())
}

const RELATIONS: [(&str, (i32, i32)); 4] = [
    (" above the ", (0, 1)),
    (" below the ", (0, -1)),
    (" to the left of the ", (-1, 0)),
    (" to the right of the ", (1, 0)),
];

fn position(statements: &[String], question: &str) -> Option<String> {
    let relation = |text: &str| {
        RELATIONS.iter().find_map(|(relation, step)| {
            let (a, b) = text.split_once(relation)?;
            Some((a.to_string(), *step, b.to_string()))
        })
    };
    let facts: Option<Vec<_>> = statements
        .iter()
        .map(|s| relation(&s.strip_prefix("the ")?.replacen(" is ", " ", 1)))
        .collect();
    let facts = facts?;
    let mut at: HashMap<&str, (i32, i32)> = HashMap::from([(facts.first()?.0.as_str(), (0, 0))]);
    for _ in 0..facts.len() {
        for (a, (dx, dy), b) in &facts {
            if let Some((x, y)) = at.get(a.as_str()).copied() {
                at.insert(b, (x - dx, y - dy));
            } else if let Some((x, y)) = at.get(b.as_str()).copied() {
                at.insert(a, (x + dx, y + dy));
            }
        }
    }
    let (a, (dx, dy), b) = relation(question.strip_prefix("is the ")?)?;
    let (a, b) = (at.get(a.as_str())?, at.get(b.as_str())?);
    Some(yes_no((a.0 - b.0) * dx + (a.1 - b.1) * dy > 0))
}

fn size(statements: &[String], question: &str) -> Option<String> {
    let mut smaller: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for statement in statements {
        let text = statement.strip_prefix("the ")?;
        let (big, small) = match text.split_once(" is bigger than the ") {
            Some(pair) => pair,
            None => {
                let (small, big) = text.split_once(" fits inside the ")?;
                (big, small)
            }
        };
        smaller.entry(big).or_default().push(small);
    }
    let (a, b) = match question.strip_prefix("is the ") {
        Some(rest) => rest.split_once(" bigger than the ")?,
        None => {
            let (small, big) = question.strip_prefix("does the ")?.split_once(" fit in the ")?;
            (big, small)
        }
    };
    let bigger = |a: &str, b: &str| {
        let mut open = vec![a];
        let mut seen = BTreeSet::new();
        while let Some(thing) = open.pop() {
            if seen.insert(thing) {
                open.extend(smaller.get(thing).into_iter().flatten());
            }
        }
        seen.contains(b)
    };
    match (bigger(a, b), bigger(b, a)) {
        (true, false) => Some("yes".into()),
        (false, true) => Some("no".into()),
        _ => None,
    }
}

fn path(statements: &[String], words: &[&str]) -> Option<String> {
    let ["how", "do", "you", "go", "from", "the", start, "to", "the", end] = *words else {
        return None;
    };
    let mut steps: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    for statement in statements {
        let (a, direction, b) = compass(statement)?;
        steps.entry(b).or_default().push((direction, a));
        steps.entry(a).or_default().push((opposite(direction)?, b));
    }
    let mut open = VecDeque::from([(start, Vec::new())]);
    let mut seen = BTreeSet::new();
    while let Some((place, way)) = open.pop_front() {
        if place == end {
            return Some(way.join(","));
        }
        if seen.insert(place) {
            for (direction, next) in steps.get(place).into_iter().flatten() {
                let mut way = way.clone();
                way.push(direction[..1].to_string());
                open.push_back((next, way));
            }
        }
    }
    None
}

fn motivation(statements: &[String], words: &[&str]) -> Option<String> {
    let x = words.get(2)?;
    let need = statements.iter().find_map(|s| s.strip_prefix(x)?.strip_prefix(" is "))?;
    if words[0] == "why" {
        return Some(need.into());
    }
    Some(match need {
        "hungry" | "thirsty" => "kitchen".into(),
        "bored" => "garden".into(),
        "tired" => "bedroom".into(),
        _ => return None,
    })
}
