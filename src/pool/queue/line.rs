//! The order of those who wait for a server: a pure state machine, without clock and threads.

use std::collections::BTreeMap;

/// A number in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::pool) struct Ticket(u64);

/// What becomes of one who waits when it is its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum Verdict<A> {
    /// It leaves the line with this answer.
    Answered(A),
    /// It waits on. Others behind it may still be served.
    Waits,
    /// It waits on, and so do all behind it.
    AllWait,
}

/// Those who wait, in the order of their tickets.
#[derive(Debug)]
pub(in crate::pool) struct WaitingLine<T> {
    waiting: BTreeMap<Ticket, T>,
    next: u64,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            waiting: BTreeMap::new(),
            next: 0,
        }
    }
}

impl<T> WaitingLine<T> {
    /// Draws the next ticket.
    pub(in crate::pool) fn draw(&mut self) -> Ticket {
        self.next += 1;
        Ticket(self.next)
    }

    /// Lets somebody in at the place of the ticket, which nobody in the line has. Returns its position, from 1.
    pub(in crate::pool) fn join(&mut self, ticket: Ticket, waiting: T) -> usize {
        let before = match self.waiting.last_key_value() {
            Some((last, _)) if *last > ticket => self.waiting.range(..ticket).count(),
            _ => self.waiting.len(), // nearly always: it has just drawn its ticket
        };
        self.waiting.insert(ticket, waiting);
        before + 1
    }

    /// Removes somebody. Returns whether it was in the line.
    pub(in crate::pool) fn leave(&mut self, ticket: Ticket) -> bool {
        self.waiting.remove(&ticket).is_some()
    }

    /// Gives everybody their turn, in order. Returns those who were answered.
    pub(in crate::pool) fn serve<A>(&mut self, mut turn: impl FnMut(&T) -> Verdict<A>) -> Vec<(T, A)> {
        let mut answers = Vec::new();
        for (ticket, waiting) in &self.waiting {
            match turn(waiting) {
                Verdict::Answered(answer) => answers.push((*ticket, answer)),
                Verdict::Waits => {}
                Verdict::AllWait => break,
            }
        }
        let leave = |(ticket, answer)| Some((self.waiting.remove(&ticket)?, answer));
        answers.into_iter().filter_map(leave).collect()
    }

    /// How many wait.
    pub(in crate::pool) fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What happens to a model of servers with room for so many, whose places are shared by all who wait.
    #[derive(Clone, Debug)]
    enum Event {
        /// Somebody comes, for this server only or for any.
        Comes(Option<usize>),
        /// Of those who wait, the one at this position leaves.
        Leaves(usize),
        /// A place on this server becomes free, if one is taken.
        Frees(usize),
    }

    const SERVERS: usize = 3;
    const ROOM: usize = 2;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => prop::option::of(0..SERVERS).prop_map(Event::Comes),
            1 => (0usize..8).prop_map(Event::Leaves),
            3 => (0..SERVERS).prop_map(Event::Frees),
        ]
    }

    #[derive(Default)]
    struct Model {
        line: WaitingLine<(u64, Option<usize>)>,
        tickets: Vec<(u64, Ticket, Option<usize>)>,
        taken: [usize; SERVERS],
        served: Vec<u64>,
    }

    impl Model {
        fn serve(&mut self) {
            let taken = &mut self.taken;
            let answers = self.line.serve(|(_, wanted)| {
                let has_room = |server: &usize| taken[*server] < ROOM;
                match wanted.map_or_else(|| (0..SERVERS).find(has_room), |own| Some(own).filter(has_room)) {
                    Some(server) => {
                        taken[server] += 1;
                        Verdict::Answered(())
                    }
                    None if wanted.is_none() => Verdict::AllWait,
                    None => Verdict::Waits,
                }
            });
            self.served.extend(answers.iter().map(|((number, _), ())| *number));
            self.tickets.retain(|(number, ..)| !self.served.contains(number));
        }
    }

    proptest! {
        #[test]
        fn nobody_waits_where_there_is_room_and_nobody_overtakes(events in prop::collection::vec(event(), 1..200)) {
            let mut model = Model::default();
            for (number, event) in (0..).zip(events) {
                match event {
                    Event::Comes(wanted) => {
                        let ticket = model.line.draw();
                        prop_assert_eq!(model.line.join(ticket, (number, wanted)), model.tickets.len() + 1);
                        model.tickets.push((number, ticket, wanted));
                    }
                    Event::Leaves(position) if position < model.tickets.len() => {
                        let (_, ticket, _) = model.tickets.remove(position);
                        prop_assert!(model.line.leave(ticket));
                        prop_assert!(!model.line.leave(ticket), "it has left");
                    }
                    Event::Frees(server) if model.taken[server] > 0 => model.taken[server] -= 1,
                    _ => {}
                }
                let before: Vec<_> = model.tickets.iter().map(|(number, _, wanted)| (*number, *wanted)).collect();
                model.serve();
                prop_assert!(model.taken.iter().all(|taken| *taken <= ROOM));
                for (number, _, wanted) in &model.tickets {
                    let is_full = |server: usize| model.taken[server] == ROOM;
                    prop_assert!(wanted.map_or((0..SERVERS).all(is_full), is_full), "it waits though there is room");
                    let overtook = before.iter().find(|(other, of)| {
                        other > number && of == wanted && model.served.contains(other)
                    });
                    prop_assert_eq!(overtook, None, "{} was overtaken", number);
                }
                prop_assert_eq!(model.line.len(), model.tickets.len());
            }
        }

        #[test]
        fn who_comes_again_has_its_old_place(others in 1usize..20, position in 0usize..20) {
            let mut line = WaitingLine::default();
            let tickets: Vec<_> = (0..=others).map(|number| {
                let ticket = line.draw();
                line.join(ticket, number);
                ticket
            }).collect();
            let position = position % tickets.len();
            line.leave(tickets[position]);
            prop_assert_eq!(line.join(tickets[position], position), position + 1);
            let order: Vec<_> = line.serve(|_| Verdict::Answered(())).into_iter().map(|(number, ())| number).collect();
            prop_assert_eq!(order, (0..=others).collect::<Vec<_>>());
        }
    }
}
