//! The modules of a crate as a graph: which top-level module names which other one. A file's module and its children count as one,
//! and so do all items of the root itself, as the module `crate`. Code for tests is left out.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "syntax trees have many kinds of nodes, and this looks at some"
)]

use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use syn::visit::Visit;
use syn::{Attribute, File, Item, ItemImpl, ItemMod, ItemUse, Macro, Type, UseTree};

/// The node of what the root file itself defines.
const ROOT: &str = "crate";

/// Where a module names another one.
type Places = BTreeSet<(String, usize)>;

/// The top-level modules of a crate.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    modules: BTreeSet<String>,
    /// What the root re-exports: the name, and the module that it comes from.
    exported: BTreeMap<String, String>,
    edges: BTreeMap<(String, String), Places>,
    /// Methods of types of another module: calls of them name no module, so that the graph does not show them.
    stray: Vec<String>,
}

impl Graph {
    /// Reads a crate from its root file.
    pub(crate) fn read(root: &Path) -> Self {
        Self::parse(root, &|path| std::fs::read_to_string(path).ok())
    }

    /// The same with files from anywhere.
    fn parse(root: &Path, text_of: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut files = Vec::new();
        let text = text_of(root).unwrap_or_else(|| panic!("{}", root.display()));
        let file = syn::parse_file(&text).unwrap();
        load(root, root.parent().unwrap(), file, Vec::new(), text_of, &mut files);
        let mut graph = Self::default();
        for item in &files[0].2.items {
            match item {
                Item::Mod(module) => {
                    graph.modules.insert(module.ident.to_string());
                }
                Item::Use(item) => {
                    for (path, name, _) in flat(item) {
                        let first = path.iter().find(|name| *name != "self" && *name != ROOT).cloned();
                        graph.exported.extend(first.map(|first| (name, first)));
                    }
                }
                _ => {}
            }
        }
        let modules = &graph.modules;
        graph.exported.retain(|_, module| modules.contains(module));
        for (path, module, file) in files {
            let mut reader = Reader {
                imports: imports(&file, &module),
                graph: &mut graph,
                path,
                module,
            };
            reader.visit_file(&file);
        }
        graph
    }

    /// What each circle consists of, and where each of its arrows is drawn; empty without circles.
    pub(crate) fn complaints(&self) -> String {
        let mut out = String::new();
        for circle in self.circles() {
            writeln!(
                out,
                "circle of {} modules: {}",
                circle.len(),
                circle.iter().cloned().collect::<Vec<_>>().join(", ")
            )
            .unwrap();
            for ((from, to), places) in &self.edges {
                if circle.contains(from) && circle.contains(to) {
                    let places: Vec<_> = places.iter().map(|(path, line)| format!("{path}:{line}")).collect();
                    writeln!(out, "  {from} -> {to}: {}", places.join(" ")).unwrap();
                }
            }
        }
        for line in &self.stray {
            writeln!(out, "{line}").unwrap();
        }
        out
    }

    /// Strongly connected modules, each set once.
    fn circles(&self) -> Vec<BTreeSet<String>> {
        let reach: BTreeMap<_, _> = self.nodes().map(|node| (node.clone(), self.reachable(node))).collect();
        let mut circles: Vec<BTreeSet<String>> = Vec::new();
        for (node, reached) in &reach {
            if reached.contains(node) && !circles.iter().any(|circle| circle.contains(node)) {
                circles.push(
                    reached
                        .iter()
                        .filter(|other| reach[*other].contains(node))
                        .cloned()
                        .collect(),
                );
            }
        }
        circles
    }

    fn nodes(&self) -> impl Iterator<Item = &String> {
        self.edges
            .keys()
            .map(|(from, _)| from)
            .collect::<BTreeSet<_>>()
            .into_iter()
    }

    fn reachable(&self, node: &str) -> BTreeSet<String> {
        let mut reached = BTreeSet::new();
        let mut open = vec![node.to_owned()];
        while let Some(node) = open.pop() {
            for (_, to) in self.edges.keys().filter(|(from, _)| *from == node) {
                if reached.insert(to.clone()) && self.edges.keys().any(|(from, _)| from == to) {
                    open.push(to.clone());
                }
            }
        }
        // Modules that name none are reached, and are in no circle.
        reached.retain(|node| self.edges.keys().any(|(from, _)| from == node));
        reached
    }

    /// The module that an absolute path leads to.
    fn target(&self, path: &[String]) -> String {
        let first = path.first().map_or(ROOT, String::as_str);
        if self.modules.contains(first) {
            return first.to_owned();
        }
        self.exported.get(first).cloned().unwrap_or_else(|| ROOT.to_owned())
    }
}

/// A parsed file: its name, its module's path, what is in it.
type Parsed = (String, Vec<String>, File);

/// Reads the files of a module's children; `directory` is where they are.
fn load(
    path: &Path,
    directory: &Path,
    file: File,
    module: Vec<String>,
    text_of: &dyn Fn(&Path) -> Option<String>,
    files: &mut Vec<Parsed>,
) {
    let mut children = Vec::new();
    for item in &file.items {
        if let Item::Mod(child) = item
            && child.content.is_none()
            && !is_test(&child.attrs)
        {
            children.push(child.ident.to_string());
        }
    }
    files.push((path.display().to_string(), module.clone(), file));
    for name in children {
        let below = directory.join(&name);
        let places = [directory.join(format!("{name}.rs")), below.join("mod.rs")];
        let (path, text) = places
            .iter()
            .find_map(|path| text_of(path).map(|text| (path, text)))
            .unwrap_or_else(|| panic!("{}: no file of module {name}", directory.display()));
        let file = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let module = [module.clone(), vec![name]].concat();
        load(path, &below, file, module, text_of, files);
    }
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg")
                && attribute.meta.require_list().is_ok_and(|list| {
                    let condition = list.tokens.to_string();
                    condition == "test" || condition.starts_with("all (test")
                })
    })
}

/// The paths of a `use`: whole, under which name, in which line.
fn flat(item: &ItemUse) -> Vec<(Vec<String>, String, usize)> {
    fn walk(tree: &UseTree, before: &[String], out: &mut Vec<(Vec<String>, String, usize)>) {
        let with = |name: &proc_macro2::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => walk(&path.tree, &with(&path.ident), out),
            UseTree::Name(name) => out.push((
                with(&name.ident),
                name.ident.to_string(),
                name.ident.span().start().line,
            )),
            UseTree::Rename(name) => out.push((
                with(&name.ident),
                name.rename.to_string(),
                name.ident.span().start().line,
            )),
            UseTree::Glob(glob) => out.push((before.to_vec(), "*".to_owned(), glob.star_token.spans[0].start().line)),
            UseTree::Group(group) => group.items.iter().for_each(|tree| walk(tree, before, out)),
        }
    }
    let mut out = Vec::new();
    walk(&item.tree, &[], &mut out);
    out
}

/// Which absolute path each imported name of a file stands for.
fn imports(file: &File, module: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::new();
    for item in &file.items {
        if let Item::Use(item) = item
            && !is_test(&item.attrs)
        {
            for (path, name, _) in flat(item) {
                found.extend(absolute(&path, module).map(|path| (name, path)));
            }
        }
    }
    found
}

/// A path from the root of the crate, if it says where it begins.
fn absolute(path: &[String], module: &[String]) -> Option<Vec<String>> {
    let mut base = match path.first()?.as_str() {
        ROOT => Vec::new(),
        "self" | "super" => module.to_vec(),
        _ => return None,
    };
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match first.as_str() {
            "super" => drop(base.pop()),
            "self" | ROOT => {}
            _ => break,
        }
        rest = after;
    }
    base.extend_from_slice(rest);
    Some(base)
}

struct Reader<'a> {
    graph: &'a mut Graph,
    path: String,
    module: Vec<String>,
    imports: BTreeMap<String, Vec<String>>,
}

impl Reader<'_> {
    fn top(&self) -> String {
        self.module.first().cloned().unwrap_or_else(|| ROOT.to_owned())
    }

    /// Notes what a path leads to.
    fn see(&mut self, path: &[String], line: usize) {
        let found = match absolute(path, &self.module) {
            Some(path) => path,
            // In the root a module's name is enough.
            None if self.module.is_empty() && path.first().is_some_and(|first| self.graph.modules.contains(first)) => {
                path.to_vec()
            }
            None => return,
        };
        let (from, to) = (self.top(), self.graph.target(&found));
        if from != to {
            let places = self.graph.edges.entry((from, to)).or_default();
            places.insert((self.path.clone(), line));
        }
    }

    /// Paths in the arguments of a macro. A lone `crate` is of a `pub(crate)`.
    fn see_tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut line = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.see_found(std::mem::take(&mut path), line);
                    }
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' && !path.is_empty() => colons += 1,
                other => {
                    self.see_found(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.see_tokens(group.stream());
                    }
                }
            }
        }
        self.see_found(path, line);
    }

    fn see_found(&mut self, path: Vec<String>, line: usize) {
        if path.len() > 1 {
            self.see(&path, line);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return syn::visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !is_test(&item.attrs) {
            syn::visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        if item.content.is_some() {
            self.module.push(item.ident.to_string());
            syn::visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        for (path, _, line) in flat(item) {
            self.see(&path, line);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast ItemImpl) {
        if item.trait_.is_none()
            && let Type::Path(of) = &*item.self_ty
        {
            let path: Vec<String> = of.path.segments.iter().map(|part| part.ident.to_string()).collect();
            let imported = (path.len() == 1).then(|| self.imports.get(&path[0]).cloned()).flatten();
            if let Some(found) = imported.or_else(|| absolute(&path, &self.module))
                && self.graph.target(&found) != self.top()
            {
                let line = item.impl_token.span.start().line;
                self.graph.stray.push(format!(
                    "{}:{line}: methods of {} outside of its module",
                    self.path,
                    path.join("::")
                ));
            }
        }
        syn::visit::visit_item_impl(self, item);
    }

    /// `pub(crate)` names no module.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<String> = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if let Some(first) = path.segments.first() {
            self.see(&names, first.ident.span().start().line);
        }
        syn::visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        self.visit_path(&item.path);
        self.see_tokens(item.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaints(files: &[(&str, &str)]) -> String {
        let text_of = |path: &Path| {
            let found = files.iter().find(|(name, _)| Path::new(name) == path);
            found.map(|(_, text)| (*text).to_owned())
        };
        Graph::parse(Path::new("src/lib.rs"), &text_of).complaints()
    }

    #[test]
    fn a_circle_is_found_in_whatever_form_it_is_written() {
        let back = [
            "use crate::a::A;",
            "use super::a;",
            "use crate::{a::A, c};",
            "use crate::A;",
            "fn f(_: crate::a::A) {}",
            "fn f() { super::a::f() }",
            "fn f() { tokio::select! { _ = crate::a::f() => {} } }",
            "mod inner { use super::super::a; }",
        ];
        for text in back {
            let found = complaints(&[
                ("src/lib.rs", "mod a; mod b; mod c; pub use a::A;"),
                ("src/a.rs", "use crate::c::C;"),
                ("src/c.rs", "mod d;"),
                ("src/c/d.rs", "use crate::b;"),
                ("src/b/mod.rs", text),
            ]);
            assert!(found.starts_with("circle of 3 modules: a, b, c\n"), "{text}: {found}");
            assert!(found.contains("  b -> a: src/b/mod.rs:1\n"), "{text}: {found}");
            assert!(found.contains("  c -> b: src/c/d.rs:1\n"), "{text}: {found}");
        }
    }

    #[test]
    fn what_the_root_defines_is_a_module_like_others() {
        let found = complaints(&[
            ("src/lib.rs", "mod a; pub use a::A; pub struct Own;"),
            ("src/a.rs", "use crate::Own; pub struct A;"),
        ]);
        assert!(found.starts_with("circle of 2 modules: a, crate\n"), "{found}");
    }

    #[test]
    fn methods_outside_of_their_type_s_module_are_found() {
        let found = complaints(&[
            ("src/lib.rs", "mod a; mod b;"),
            ("src/a.rs", "pub struct A;"),
            ("src/b.rs", "use crate::a::A;\nimpl A {}"),
        ]);
        assert_eq!(found, "src/b.rs:2: methods of A outside of its module\n");
    }

    #[test]
    fn arrows_in_one_direction_comments_strings_and_tests_are_no_circle() {
        let found = complaints(&[
            ("src/lib.rs", "mod a; mod b; pub use b::B;"),
            (
                "src/a.rs",
                "mod below; use crate::B; impl Trait for B {} use self::below::C;",
            ),
            (
                "src/a/below.rs",
                "use super::super::b; use crate::a::D; impl D { pub(crate) fn f() {} }",
            ),
            (
                "src/b.rs",
                "/// [`crate::a::A`]\nfn f() -> &'static str { \"crate::a::A\" }\n#[cfg(test)] mod tests { use crate::a::A; }\n\
                 #[cfg(test)] use crate::a;",
            ),
        ]);
        assert_eq!(found, "");
    }
}
