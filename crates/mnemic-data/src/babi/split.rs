//! The validation split of the editions that have none of their own.

use super::story::{Line, Story};

/// Splits stories by question in order: the first 90 % (rounded down), and the rest.
///
/// The story in which the cut falls appears in both parts. In the first it ends with its last
/// question; in the second the questions of the first part are left out and line ids close up, so
/// that the remaining questions keep exactly the context they had.
pub(super) fn split_by_question(mut stories: Vec<Story>) -> (Vec<Story>, Vec<Story>) {
    let questions: usize = stories.iter().map(Story::num_questions).sum();
    let mut keep = questions - questions.div_ceil(10);
    let mut cut = 0;
    while cut < stories.len() && stories[cut].num_questions() <= keep {
        keep -= stories[cut].num_questions();
        cut += 1;
    }
    let mut rest = stories.split_off(cut);
    if keep > 0
        && let Some(first) = rest.first_mut()
    {
        let (head, tail) = cut_story(first, keep);
        stories.push(head);
        *first = tail;
    }
    (stories, rest)
}

/// Cuts a story after its `keep`-th question (at least one, fewer than all).
fn cut_story(story: &Story, keep: usize) -> (Story, Story) {
    let mut head = Story::default();
    let mut tail = Story::default();
    // The id in `tail` of each line of `story` that it has, 0 for the others.
    let mut new_ids: Vec<u32> = Vec::with_capacity(story.lines.len());
    let mut asked = 0;
    for line in &story.lines {
        if asked < keep {
            head.lines.push(line.clone());
        }
        let question = matches!(line, Line::Question { .. });
        asked += usize::from(question);
        if question && asked <= keep {
            new_ids.push(0);
            continue;
        }
        let mut line = line.clone();
        if let Line::Question { supports, .. } = &mut line {
            for id in supports.iter_mut() {
                *id = new_ids.get((*id as usize).wrapping_sub(1)).copied().unwrap_or(*id);
            }
        }
        tail.lines.push(line);
        new_ids.push(tail.lines.len() as u32);
    }
    (head, tail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::babi::{Task, examples, parse_stories};

    fn story(questions: usize) -> String {
        (0..questions)
            .map(|i| {
                let (id, fact) = (2 * i + 1, i % 3);
                format!("{id} Fact {fact} holds.\n{} Is it {fact}?\ta{i}\t{id} 1\n", id + 1)
            })
            .collect()
    }

    #[test]
    fn cuts_between_and_inside_stories_without_changing_an_example() {
        for counts in [vec![5; 4], vec![8; 5], vec![3, 7, 1, 9, 4], vec![30], vec![1; 7], vec![2]] {
            let text: String = counts.iter().map(|&n| story(n)).collect();
            let all = parse_stories("t", text.as_bytes()).unwrap();
            let (train, valid) = split_by_question(all.clone());
            let total: usize = counts.iter().sum();
            let task = Task::new(1).unwrap();
            let (train, valid) = (examples(task, &train), examples(task, &valid));
            assert_eq!(train.len(), total * 9 / 10, "{counts:?}");
            assert_eq!(train.len() + valid.len(), total);
            for (part, whole) in train.iter().chain(&valid).zip(examples(task, &all)) {
                assert_eq!(part.statements, whole.statements);
                assert_eq!(part.question, whole.question);
                assert_eq!((&part.answer, &part.supports), (&whole.answer, &whole.supports));
            }
        }
    }

    #[test]
    fn both_parts_are_well_formed_stories() {
        let all = parse_stories("t", story(30).as_bytes()).unwrap();
        let (train, valid) = split_by_question(all);
        for part in [train, valid] {
            assert_eq!(part.len(), 1);
            assert_eq!(parse_stories("t", part[0].to_string().as_bytes()).unwrap(), part);
        }
    }
}
