//! The order of the clients that wait for a server: a pure state machine, without clock and threads.

use std::collections::BTreeMap;

/// A number in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::pool) struct Ticket(u64);

/// The result of a client's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pool) enum Verdict<A> {
    /// It leaves the line with this answer.
    Answered(A),
    /// It stays in the line. Others behind it may still be served.
    Waits,
    /// It stays in the line, and so do all behind it.
    AllWait,
}

/// The waiting clients. Those that have ended their stream are behind all others. Within both groups, the order is that
/// of the tickets.
#[derive(Debug)]
pub(in crate::pool) struct WaitingLine<T> {
    open: BTreeMap<Ticket, T>,
    /// The clients that have ended their stream. They may still wait for an answer, or be gone.
    ended: BTreeMap<Ticket, T>,
    next: u64,
}

impl<T> Default for WaitingLine<T> {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            ended: BTreeMap::new(),
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

    /// Adds a client at the place of the ticket; nobody in the line may have this ticket. Returns its position, from 1.
    pub(in crate::pool) fn join(&mut self, ticket: Ticket, has_ended: bool, waiting: T) -> usize {
        let (ahead_of_group, group) = match has_ended {
            true => (self.open.len(), &mut self.ended),
            false => (0, &mut self.open),
        };
        let ahead_in_group = match group.last_key_value() {
            Some((last, _)) if *last > ticket => group.range(..ticket).count(),
            _ => group.len(), // nearly always: the client has just drawn its ticket
        };
        group.insert(ticket, waiting);
        ahead_of_group + ahead_in_group + 1
    }

    /// Moves a client that has ended its stream behind those that have not, if it is in the line.
    pub(in crate::pool) fn move_behind_open(&mut self, ticket: Ticket) {
        if let Some(waiting) = self.open.remove(&ticket) {
            self.ended.insert(ticket, waiting);
        }
    }

    /// Removes a client. Returns whether it was in the line.
    pub(in crate::pool) fn leave(&mut self, ticket: Ticket) -> bool {
        self.open
            .remove(&ticket)
            .or_else(|| self.ended.remove(&ticket))
            .is_some()
    }

    /// Makes room for the client that has drawn the latest ticket, if it still waits: removes the last client that has
    /// ended its stream or, if there is none, the newcomer itself. Returns the removed client.
    pub(in crate::pool) fn make_room_for(&mut self, newcomer: Ticket) -> Option<T> {
        let waits = self.open.contains_key(&newcomer) || self.ended.contains_key(&newcomer);
        let last_ended = if waits { self.ended.pop_last() } else { None };
        last_ended
            .map(|(_, waiting)| waiting)
            .or_else(|| self.open.remove(&newcomer))
    }

    /// Gives the clients their turns, in order, up to a [`Verdict::AllWait`]. Returns the clients that were answered.
    pub(in crate::pool) fn serve<A>(&mut self, mut turn: impl FnMut(&mut T) -> Verdict<A>) -> Vec<(T, A)> {
        let mut answers = Vec::new();
        for (ticket, waiting) in self.open.iter_mut().chain(&mut self.ended) {
            match turn(waiting) {
                Verdict::Answered(answer) => answers.push((*ticket, answer)),
                Verdict::Waits => {}
                Verdict::AllWait => break,
            }
        }
        let mut remove = |ticket| self.open.remove(&ticket).or_else(|| self.ended.remove(&ticket));
        let leave = |(ticket, answer)| Some((remove(ticket)?, answer));
        answers.into_iter().filter_map(leave).collect()
    }

    /// How many clients wait.
    pub(in crate::pool) fn len(&self) -> usize {
        self.open.len() + self.ended.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An event in a model of [`SERVERS`] servers, each with [`ROOM`] places for clients.
    #[derive(Clone, Debug)]
    enum Event {
        /// A client comes, for this server only or for any.
        Comes(Option<usize>),
        /// A client comes when the line is full.
        ComesToFullLine,
        /// The client at this position leaves.
        Leaves(usize),
        /// The client at this position ends its stream.
        Ends(usize),
        /// A place on this server becomes free, if one is taken.
        Frees(usize),
    }

    const SERVERS: usize = 3;
    const ROOM: usize = 2;

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => prop::option::of(0..SERVERS).prop_map(Event::Comes),
            1 => Just(Event::ComesToFullLine),
            1 => (0usize..8).prop_map(Event::Leaves),
            1 => (0usize..8).prop_map(Event::Ends),
            3 => (0..SERVERS).prop_map(Event::Frees),
        ]
    }

    #[derive(Clone, Debug, PartialEq)]
    struct ModelClient {
        number: u64,
        ticket: Ticket,
        wanted: Option<usize>,
        has_ended: bool,
    }

    #[derive(Default)]
    struct Model {
        /// Each client has a number, and the server that it wants.
        line: WaitingLine<(u64, Option<usize>)>,
        /// The waiting clients, in the order of arrival.
        waiting: Vec<ModelClient>,
        taken: [usize; SERVERS],
        served: Vec<u64>,
    }

    impl Model {
        fn serve(&mut self) {
            let taken = &mut self.taken;
            let answers = self.line.serve(|(_, wanted)| {
                let has_room = |server: &usize| taken[*server] < ROOM;
                let server_with_room = match *wanted {
                    Some(server) => Some(server).filter(has_room),
                    None => (0..SERVERS).find(has_room),
                };
                match server_with_room {
                    Some(server) => {
                        taken[server] += 1;
                        Verdict::Answered(())
                    }
                    None if wanted.is_none() => Verdict::AllWait,
                    None => Verdict::Waits,
                }
            });
            self.served.extend(answers.iter().map(|((number, _), ())| *number));
            self.waiting.retain(|client| !self.served.contains(&client.number));
        }
    }

    proptest! {
        #[test]
        fn no_client_waits_with_room_left_or_is_overtaken_by_one_with_the_same_wish(
            events in prop::collection::vec(event(), 1..200)
        ) {
            let mut model = Model::default();
            for (number, event) in (0..).zip(events) {
                match event {
                    Event::Comes(wanted) => {
                        let open = model.waiting.iter().filter(|client| !client.has_ended).count();
                        let ticket = model.line.draw();
                        prop_assert_eq!(model.line.join(ticket, false, (number, wanted)), open + 1);
                        model.waiting.push(ModelClient { number, ticket, wanted, has_ended: false });
                    }
                    Event::ComesToFullLine => {
                        let ticket = model.line.draw();
                        model.line.join(ticket, false, (number, None));
                        let last_ended = model.waiting.iter().rposition(|client| client.has_ended);
                        let expected = last_ended.map_or(number, |position| model.waiting.remove(position).number);
                        let removed = model.line.make_room_for(ticket).map(|(number, _)| number);
                        prop_assert_eq!(removed, Some(expected));
                        if expected != number {
                            model.waiting.push(ModelClient { number, ticket, wanted: None, has_ended: false });
                        }
                    }
                    Event::Ends(position) if position < model.waiting.len() => {
                        model.waiting[position].has_ended = true;
                        model.line.move_behind_open(model.waiting[position].ticket);
                    }
                    Event::Leaves(position) if position < model.waiting.len() => {
                        let ticket = model.waiting.remove(position).ticket;
                        prop_assert!(model.line.leave(ticket));
                        prop_assert!(!model.line.leave(ticket), "it has left");
                    }
                    Event::Frees(server) if model.taken[server] > 0 => model.taken[server] -= 1,
                    _ => {}
                }
                let before = model.waiting.clone();
                model.serve();
                prop_assert!(model.taken.iter().all(|taken| *taken <= ROOM));
                for ModelClient { number, wanted, has_ended, .. } in &model.waiting {
                    let is_full = |server: usize| model.taken[server] == ROOM;
                    prop_assert!(wanted.map_or((0..SERVERS).all(is_full), is_full), "nobody waits while there is room");
                    let overtook = before.iter().find(|other| {
                        let is_behind = (&other.has_ended, &other.number) > (has_ended, number);
                        is_behind && other.wanted == *wanted && model.served.contains(&other.number)
                    });
                    prop_assert_eq!(overtook, None, "nobody overtakes client {}", number);
                }
                prop_assert_eq!(model.line.len(), model.waiting.len());
            }
        }

        #[test]
        fn a_returning_client_keeps_its_place_in_the_queue(others in 1usize..20, position in 0usize..20) {
            let mut line = WaitingLine::default();
            let tickets: Vec<_> = (0..=others).map(|number| {
                let ticket = line.draw();
                line.join(ticket, false, number);
                ticket
            }).collect();
            let position = position % tickets.len();
            line.leave(tickets[position]);
            prop_assert_eq!(line.join(tickets[position], false, position), position + 1);
            let order: Vec<_> = line.serve(|_| Verdict::Answered(())).into_iter().map(|(number, ())| number).collect();
            prop_assert_eq!(order, (0..=others).collect::<Vec<_>>());
        }
    }
}
