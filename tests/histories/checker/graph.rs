//! Cycles of a graph with labelled edges: strongly connected components after Tarjan ("Depth-first search and linear graph
//! algorithms", 1972) without recursion, and a short cycle of the simplest kind in each.

use std::collections::{HashMap, VecDeque};

/// Why one transaction is after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EdgeKind {
    /// The reads of an unchecked transaction are before its writes.
    Inner,
    /// It wrote what the other wrote next.
    Ww,
    /// It wrote what the other saw.
    Wr,
    /// It did not see what the other wrote.
    Rw,
    /// It had ended before the other began.
    RealTime,
}

/// From a node to one that must be after it.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub from: usize,
    pub to: usize,
    pub kind: EdgeKind,
    /// The key that tells; none of the history's for the kinds that need none.
    pub key: u32,
}

/// Edges by the node that they leave.
pub struct Graph {
    edges: Vec<Edge>,
    /// Where the edges of a node begin, and after the last node where all end.
    starts: Vec<usize>,
}

/// A cycle of a component.
#[derive(Clone, Debug)]
pub struct Cycle {
    pub edges: Vec<Edge>,
    /// How many nodes depend on each other here.
    pub members: usize,
}

impl Graph {
    /// A graph of `nodes` nodes. Edges from a node to itself say nothing and are left out.
    pub fn new(nodes: usize, edges: impl Iterator<Item = Edge>) -> Graph {
        let mut edges: Vec<Edge> = edges.filter(|edge| edge.from != edge.to).collect();
        edges.sort_unstable_by_key(|edge| edge.from);
        let mut starts = vec![0; nodes + 1];
        edges.iter().for_each(|edge| starts[edge.from + 1] += 1);
        (0..nodes).for_each(|node| starts[node + 1] += starts[node]);
        Graph { edges, starts }
    }

    /// A cycle of each component that has any.
    pub fn cycles(&self) -> Vec<Cycle> {
        let components = self.components();
        let mut members = vec![Vec::new(); components.iter().max().map_or(0, |last| last + 1)];
        components.iter().enumerate().for_each(|(node, component)| members[*component].push(node));
        let circles = members.iter().filter(|members| members.len() > 1);
        circles.map(|members| self.shortest_cycle(members, &components)).collect()
    }

    /// The number of each node's component.
    fn components(&self) -> Vec<usize> {
        const UNSEEN: usize = usize::MAX;
        let nodes = self.starts.len() - 1;
        let mut order = vec![UNSEEN; nodes];
        let mut low = vec![UNSEEN; nodes];
        let mut component = vec![UNSEEN; nodes];
        let (mut seen, mut components) = (0, 0);
        // Nodes whose component is not complete, and the path to the current one with the edges to look at next.
        let (mut open, mut path) = (Vec::new(), Vec::new());
        for root in 0..nodes {
            if order[root] != UNSEEN {
                continue;
            }
            path.push((root, self.starts[root]));
            while let Some((node, next)) = path.pop() {
                if order[node] == UNSEEN {
                    (order[node], low[node]) = (seen, seen);
                    seen += 1;
                    open.push(node);
                }
                if next < self.starts[node + 1] {
                    path.push((node, next + 1));
                    let to = self.edges[next].to;
                    if order[to] == UNSEEN {
                        path.push((to, self.starts[to]));
                    } else if component[to] == UNSEEN {
                        low[node] = low[node].min(order[to]);
                    }
                    continue;
                }
                if low[node] == order[node] {
                    while let Some(member) = open.pop() {
                        component[member] = components;
                        if member == node {
                            break;
                        }
                    }
                    components += 1;
                }
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[node]);
                }
            }
        }
        component
    }

    /// A short cycle among the members of a component, of the kind that says most: without real time if there is one,
    /// of writes alone, of flowing information, with one `rw`, with more.
    fn shortest_cycle(&self, members: &[usize], components: &[usize]) -> Cycle {
        use EdgeKind::{Inner, RealTime, Rw, Wr, Ww};
        /// Nodes that a search begins at; more would take long in a large component and say the same.
        const STARTS_MAX: usize = 64;
        let classes: [(&[EdgeKind], &[EdgeKind]); 8] = [
            (&[Ww], &[Ww]),
            (&[Wr], &[Ww, Wr, Inner]),
            (&[Rw], &[Ww, Wr, Inner]),
            (&[Rw], &[Ww, Wr, Rw, Inner]),
            (&[Ww], &[Ww, RealTime]),
            (&[RealTime], &[Ww, Wr, Inner, RealTime]),
            (&[Rw], &[Ww, Wr, Inner, RealTime]),
            (&[Rw], &[Ww, Wr, Rw, Inner, RealTime]),
        ];
        let inside = |edge: &&Edge| components[edge.from] == components[edge.to];
        for (first, others) in classes {
            let edges = members.iter().flat_map(|node| self.leaving(*node)).filter(inside);
            let firsts = edges.filter(|edge| first.contains(&edge.kind)).take(STARTS_MAX);
            let cycles = firsts.filter_map(|edge| {
                let mut edges = vec![*edge];
                edges.extend(self.path(edge.to, edge.from, others, components)?);
                Some(edges)
            });
            if let Some(edges) = cycles.min_by_key(Vec::len) {
                return Cycle { edges, members: members.len() };
            }
        }
        Cycle { edges: Vec::new(), members: members.len() }
    }

    /// A shortest path over edges of these kinds, within a component.
    fn path(&self, from: usize, to: usize, kinds: &[EdgeKind], components: &[usize]) -> Option<Vec<Edge>> {
        let mut came_by = HashMap::new();
        let mut queue = VecDeque::from([from]);
        while let Some(node) = queue.pop_front() {
            if node == to {
                let mut edges = Vec::new();
                let mut node = to;
                while node != from {
                    let edge: Edge = came_by[&node];
                    edges.push(edge);
                    node = edge.from;
                }
                edges.reverse();
                return Some(edges);
            }
            for edge in self.leaving(node).filter(|edge| kinds.contains(&edge.kind)) {
                let inside = components[edge.to] == components[from];
                if inside && edge.to != from && !came_by.contains_key(&edge.to) {
                    came_by.insert(edge.to, *edge);
                    queue.push_back(edge.to);
                }
            }
        }
        None
    }

    fn leaving(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges[self.starts[node]..self.starts[node + 1]].iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn graph(nodes: usize, edges: &[(usize, usize, EdgeKind)]) -> Graph {
        let edge = |&(from, to, kind): &(usize, usize, EdgeKind)| Edge { from, to, kind, key: 0 };
        Graph::new(nodes, edges.iter().map(edge))
    }

    #[test]
    fn components_are_those_of_reachability() {
        let mut state = 7_u64;
        let mut next = move |limit: usize| {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (state >> 33) as usize % limit
        };
        for _ in 0..300 {
            let nodes = 2 + next(9);
            let edges: Vec<_> =
                (0..next(3 * nodes)).map(|_| (next(nodes), next(nodes), EdgeKind::Ww)).collect();
            let mut reaches = vec![vec![false; nodes]; nodes];
            (0..nodes).for_each(|node| reaches[node][node] = true);
            edges.iter().for_each(|(from, to, _)| reaches[*from][*to] = true);
            for (middle, from, to) in
                (0..nodes.pow(3)).map(|i| (i / nodes / nodes, i / nodes % nodes, i % nodes))
            {
                reaches[from][to] |= reaches[from][middle] && reaches[middle][to];
            }
            let components = graph(nodes, &edges).components();
            for (a, b) in (0..nodes * nodes).map(|pair| (pair / nodes, pair % nodes)) {
                let together = reaches[a][b] && reaches[b][a];
                assert_eq!(components[a] == components[b], together, "{a} and {b} of {edges:?}");
            }
        }
    }

    #[test]
    fn the_simplest_kind_of_cycle_is_told() {
        use EdgeKind::{RealTime, Rw, Wr, Ww};
        let cycles =
            graph(4, &[(0, 1, Rw), (1, 0, Rw), (1, 2, Ww), (2, 3, Wr), (3, 0, Ww), (2, 0, RealTime)])
                .cycles();
        let kinds: Vec<EdgeKind> = cycles[0].edges.iter().map(|edge| edge.kind).collect();
        assert_eq!((cycles.len(), cycles[0].members, kinds), (1, 4, vec![Rw, Ww, Wr, Ww]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let nodes = 1_000_000;
        let edges: Vec<_> = (0..nodes).map(|node| (node, (node + 1) % nodes, EdgeKind::Ww)).collect();
        let components = graph(nodes, &edges).components();
        assert!(components.iter().all(|component| *component == 0));
    }
}
