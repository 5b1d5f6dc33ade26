//! What a row of [`table`](crate::table) becomes: each macro turns its rows into an enum and one const table, so that a name,
//! its type and its meaning cannot drift apart.

/// Declares a closed set of strings that travel as an attribute value.
macro_rules! enumeration {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $value:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// All members, in the order of the schema.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            /// The wire values of [`Self::ALL`], in the same order.
            pub const VALUES: &'static [&'static str] = &[$($value,)+];

            /// The value as it stands on the wire.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $value,)+ }
            }

            /// The member whose wire value is `value`.
            pub fn from_value(value: &str) -> Option<Self> {
                match value { $($value => Some(Self::$variant),)+ _ => None }
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

/// Declares the attribute keys: variant, wire key, argument name in the macros, type, meaning.
macro_rules! attributes {
    ($($variant:ident = $key:literal, $arg:literal, $ty:expr, $doc:literal;)+) => {
        /// An attribute key of the schema. The discriminant is its index in [`Attr::ALL`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Attr { $(#[doc = concat!("`", $key, "`: ", $doc, ".")] $variant,)+ }

        impl Attr {
            /// Every attribute of the schema.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
        }

        pub(crate) const ATTRIBUTES: &[Attribute] = &[$(Attribute {
            key: $key,
            argument: $arg,
            ty: $ty,
            doc: $doc,
        },)+];

        /// The attribute whose default wire key is `key`.
        pub(crate) fn attribute_by_key(key: &str) -> Option<Attr> {
            match key { $($key => Some(Attr::$variant),)+ _ => None }
        }
    };
}

/// Declares the scopes and the spans each owns.
macro_rules! spans {
    (
        scopes { $($(#[$sdoc:meta])* $scope:ident = $sname:literal,)+ }
        spans { $($(#[$doc:meta])* $variant:ident = $name:literal in $owner:ident, $kind:ident, [$($attr:ident),*], derived [$($derived:ident),*];)+ }
    ) => {
        impl Scope {
            /// Both scopes.
            pub const ALL: &'static [Self] = &[$(Self::$scope,)+];

            /// The instrumentation scope's name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$scope => $sname,)+ }
            }

            /// The scope called `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($sname => Some(Self::$scope),)+ _ => None }
            }
        }

        impl SpanName {
            /// Every span name; of each scope, its default span first.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The span's name on the wire.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The span called `name`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }

            /// The one scope that owns the span.
            pub const fn scope(self) -> Scope {
                match self { $(Self::$variant => Scope::$owner,)+ }
            }

            /// The OpenTelemetry span kind.
            pub const fn kind(self) -> SpanKind {
                match self { $(Self::$variant => SpanKind::$kind,)+ }
            }

            /// Attributes that the engine may set.
            pub const fn attributes(self) -> &'static [Attr] {
                match self { $(Self::$variant => &[$(Attr::$attr,)*],)+ }
            }

            /// Attributes that the layer derives from the span's events when it ends.
            pub const fn derived(self) -> &'static [Attr] {
                match self { $(Self::$variant => &[$(Attr::$derived,)*],)+ }
            }
        }
    };
}

/// Declares the events: identifier, wire name, owning span, terminal, attributes.
macro_rules! events {
    ($($variant:ident = $ident:literal, $wire:literal, on $span:ident, terminal $terminal:literal,
       reserved [$($reserved:ident),*], required [$($required:ident),*], optional [$($optional:ident),*], $doc:literal;)+) => {
        impl Event {
            /// Every event of the schema.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The bare identifier that `journey_event!` takes, and the value of `event.type`.
            pub const fn ident(self) -> &'static str {
                match self { $(Self::$variant => $ident,)+ }
            }

            /// The name on the wire: the identifier behind its prefix.
            pub const fn wire_name(self) -> &'static str {
                match self { $(Self::$variant => $wire,)+ }
            }

            /// The event whose name on the wire is `name`.
            pub fn from_wire_name(name: &str) -> Option<Self> {
                match name { $($wire => Some(Self::$variant),)+ _ => None }
            }

            /// The event whose bare identifier is `ident`; `FIRST_RESPONSE` is an alias.
            pub fn from_ident(ident: &str) -> Option<Self> {
                match ident {
                    $($ident => Some(Self::$variant),)+
                    FIRST_RESPONSE_ALIAS => Some(Self::FirstResponseFromCore),
                    _ => None,
                }
            }

            /// The span the event belongs to.
            #[inline]
            pub const fn span(self) -> SpanName {
                match self { $(Self::$variant => SpanName::$span,)+ }
            }

            /// Whether the event ends its span.
            #[inline]
            pub const fn is_terminal(self) -> bool {
                match self { $(Self::$variant => $terminal,)+ }
            }

            /// When the event is emitted.
            pub const fn doc(self) -> &'static str {
                match self { $(Self::$variant => $doc,)+ }
            }

            /// Attributes that only the layer writes: a caller may not give them.
            pub const fn reserved(self) -> &'static [Attr] {
                match self { $(Self::$variant => &[$(Attr::$reserved,)*],)+ }
            }

            /// Attributes that the caller must give.
            pub const fn required(self) -> &'static [Attr] {
                match self { $(Self::$variant => &[$(Attr::$required,)*],)+ }
            }

            /// Attributes that the caller may give.
            pub const fn optional(self) -> &'static [Attr] {
                match self { $(Self::$variant => &[$(Attr::$optional,)*],)+ }
            }
        }
    };
}
