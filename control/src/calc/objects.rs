//! Maps of objects that are cheap to copy and to compare with what they were: a copy shares everything with the original
//! until one of them is changed, and then what was not changed.

use std::collections::{BTreeMap, btree_map};
use std::ops::{Deref, DerefMut, Index};
use std::sync::Arc;

use super::NamespacedName;

/// Objects by name.
#[derive(Debug, PartialEq)]
pub struct Named<T>(Arc<BTreeMap<String, Arc<T>>>);

impl<T> Clone for Named<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Named<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T> Deref for Named<T> {
    type Target = BTreeMap<String, Arc<T>>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// What is borrowed to be changed is copied if a copy has it, too.
impl<T> DerefMut for Named<T> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(&mut self.0)
    }
}

impl<'a, T> IntoIterator for &'a Named<T> {
    type Item = (&'a String, &'a Arc<T>);
    type IntoIter = btree_map::Iter<'a, String, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T> Named<T> {
    /// Whether this is the other, or a copy of it that neither has changed since.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T: PartialEq> Named<T> {
    /// Whether the same objects are in it.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        let same = |(one, other): (&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, other) || one == other;
        self.is_same(other)
            || (self.len() == other.len()
                && self.keys().eq(other.keys())
                && self.values().zip(other.values()).all(same))
    }
}

/// Objects by namespace and name. A change copies what is in its namespace alone.
#[derive(Debug)]
pub struct Namespaced<T>(Arc<BTreeMap<String, Arc<OfNamespace<T>>>>);

/// By name: the full name, and the object.
type OfNamespace<T> = BTreeMap<String, (NamespacedName, Arc<T>)>;

impl<T> Clone for Namespaced<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Default for Namespaced<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: PartialEq> PartialEq for Namespaced<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Namespaced<T> {
    /// The object of this namespace and name.
    #[must_use]
    pub fn find(&self, namespace: &str, name: &str) -> Option<&Arc<T>> {
        self.0.get(namespace)?.get(name).map(|(_, object)| object)
    }

    /// The object of this name.
    #[must_use]
    pub fn get(&self, (namespace, name): &NamespacedName) -> Option<&Arc<T>> {
        self.find(namespace, name)
    }

    /// Adds an object, or replaces the one of this name, which is given back.
    pub fn insert(&mut self, full_name: NamespacedName, object: Arc<T>) -> Option<Arc<T>> {
        let namespaces = Arc::make_mut(&mut self.0);
        let objects = Arc::make_mut(namespaces.entry(full_name.0.clone()).or_default());
        objects.insert(full_name.1.clone(), (full_name, object)).map(|(_, before)| before)
    }

    /// Removes an object, which is given back.
    pub fn remove(&mut self, full_name: &NamespacedName) -> Option<Arc<T>> {
        self.get(full_name)?;
        let (namespace, name) = full_name;
        let namespaces = Arc::make_mut(&mut self.0);
        let objects = Arc::make_mut(namespaces.get_mut(namespace)?);
        let removed = objects.remove(name).map(|(_, object)| object);
        if objects.is_empty() {
            namespaces.remove(namespace);
        }
        removed
    }

    /// All, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&NamespacedName, &Arc<T>)> {
        self.0.values().flat_map(|objects| objects.values().map(|(full_name, object)| (full_name, object)))
    }

    /// All names, in order.
    pub fn keys(&self) -> impl Iterator<Item = &NamespacedName> {
        self.iter().map(|(full_name, _)| full_name)
    }

    /// All objects, in the order of their names.
    pub fn values(&self) -> impl Iterator<Item = &Arc<T>> {
        self.iter().map(|(_, object)| object)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.values().map(|objects| objects.len()).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<T: PartialEq> Namespaced<T> {
    /// Whether the same objects are in it.
    pub(super) fn is_equal(&self, other: &Self) -> bool {
        self.changed(other).is_empty()
    }

    /// The names, in order, that mean other objects in the other, or none in one of the two.
    pub(super) fn changed(&self, other: &Self) -> Vec<NamespacedName> {
        let mut changed = Vec::new();
        if Arc::ptr_eq(&self.0, &other.0) {
            return changed;
        }
        for (namespace, objects) in self.0.iter() {
            let others = other.0.get(namespace);
            if others.is_some_and(|others| Arc::ptr_eq(others, objects)) {
                continue;
            }
            let same = |name: &String, object: &Arc<T>| {
                let found = others.and_then(|others| others.get(name));
                found.is_some_and(|(_, found)| Arc::ptr_eq(found, object) || found == object)
            };
            let here = objects.iter().filter(|(name, (_, object))| !same(name, object));
            changed.extend(here.map(|(_, (full_name, _))| full_name.clone()));
        }
        for (namespace, others) in other.0.iter() {
            let objects = self.0.get(namespace);
            if objects.is_some_and(|objects| Arc::ptr_eq(others, objects)) {
                continue;
            }
            let there =
                others.iter().filter(|(name, _)| objects.is_none_or(|objects| !objects.contains_key(*name)));
            changed.extend(there.map(|(_, (full_name, _))| full_name.clone()));
        }
        changed.sort_unstable();
        changed
    }
}

impl<'a, T> IntoIterator for &'a Namespaced<T> {
    type Item = (&'a NamespacedName, &'a Arc<T>);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

impl<T> Index<&NamespacedName> for Namespaced<T> {
    type Output = Arc<T>;

    /// Panics when there is no such object.
    fn index(&self, full_name: &NamespacedName) -> &Arc<T> {
        self.get(full_name).expect("an object of this name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NamespacedName {
        let (namespace, name) = text.split_once('/').unwrap();
        (namespace.into(), name.into())
    }

    #[test]
    fn copies_part_where_they_are_changed() {
        let mut objects = Namespaced::default();
        for (text, object) in [("b/y", 1), ("a/x", 2), ("b/x", 3)] {
            assert_eq!(objects.insert(name(text), Arc::new(object)), None);
        }
        let before = objects.clone();
        assert_eq!(before.keys().collect::<Vec<_>>(), [&name("a/x"), &name("b/x"), &name("b/y")]);
        assert_eq!(objects.insert(name("b/x"), Arc::new(4)).as_deref(), Some(&3));
        objects.insert(name("a/x"), Arc::new(2));
        assert_eq!(before.changed(&objects), [name("b/x")], "an equal object is no change");
        assert_eq!((before[&name("b/x")].as_ref(), objects[&name("b/x")].as_ref()), (&3, &4));
        assert_eq!(objects.remove(&name("a/x")).as_deref(), Some(&2));
        assert_eq!(objects.remove(&name("a/x")), None);
        objects.insert(name("c/z"), Arc::new(5));
        let changed = [name("a/x"), name("b/x"), name("c/z")];
        assert_eq!(
            (before.changed(&objects), objects.changed(&before)),
            (changed.to_vec(), changed.to_vec())
        );
        assert_eq!((before.len(), objects.len(), objects.is_empty()), (3, 3, false));
        assert!(before.clone().is_equal(&before) && !before.is_equal(&objects));
    }

    #[test]
    fn names_are_compared_with_what_they_mean() {
        let mut one = Named::default();
        one.insert("a".to_owned(), Arc::new(1));
        let mut other = one.clone();
        assert!(one.is_same(&other));
        other.insert("a".to_owned(), Arc::new(1));
        assert!(!one.is_same(&other) && one.is_equal(&other));
        other.insert("b".to_owned(), Arc::new(1));
        assert!(!one.is_equal(&other));
        assert_eq!(one.len(), 1, "a copy once taken stays");
    }
}
