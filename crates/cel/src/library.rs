//! The functions that v1.36 declares, library by library, in the order of upstream's environment. The order of a function's
//! signatures decides what it is taken to return when several fit.

/// The language's own.
pub(crate) const STANDARD: &str = "
_?_:_(bool, A, A) -> A
_&&_(bool, bool) -> bool
_||_(bool, bool) -> bool
!_(bool) -> bool
@not_strictly_false(bool) -> bool
_==_(A, A) -> bool
_!=_(A, A) -> bool
_+_(bytes, bytes) -> bytes
_+_(double, double) -> double
_+_(duration, duration) -> duration
_+_(duration, timestamp) -> timestamp
_+_(timestamp, duration) -> timestamp
_+_(int, int) -> int
_+_(list(A), list(A)) -> list(A)
_+_(string, string) -> string
_+_(uint, uint) -> uint
_/_(double, double) -> double
_/_(int, int) -> int
_/_(uint, uint) -> uint
_%_(int, int) -> int
_%_(uint, uint) -> uint
_*_(double, double) -> double
_*_(int, int) -> int
_*_(uint, uint) -> uint
-_(double) -> double
-_(int) -> int
_-_(double, double) -> double
_-_(duration, duration) -> duration
_-_(int, int) -> int
_-_(timestamp, duration) -> timestamp
_-_(timestamp, timestamp) -> duration
_-_(uint, uint) -> uint
_<_(bool, bool) -> bool
_<_(int, int) -> bool
_<_(int, double) -> bool
_<_(int, uint) -> bool
_<_(uint, uint) -> bool
_<_(uint, double) -> bool
_<_(uint, int) -> bool
_<_(double, double) -> bool
_<_(double, int) -> bool
_<_(double, uint) -> bool
_<_(string, string) -> bool
_<_(bytes, bytes) -> bool
_<_(timestamp, timestamp) -> bool
_<_(duration, duration) -> bool
_<=_(bool, bool) -> bool
_<=_(int, int) -> bool
_<=_(int, double) -> bool
_<=_(int, uint) -> bool
_<=_(uint, uint) -> bool
_<=_(uint, double) -> bool
_<=_(uint, int) -> bool
_<=_(double, double) -> bool
_<=_(double, int) -> bool
_<=_(double, uint) -> bool
_<=_(string, string) -> bool
_<=_(bytes, bytes) -> bool
_<=_(timestamp, timestamp) -> bool
_<=_(duration, duration) -> bool
_>_(bool, bool) -> bool
_>_(int, int) -> bool
_>_(int, double) -> bool
_>_(int, uint) -> bool
_>_(uint, uint) -> bool
_>_(uint, double) -> bool
_>_(uint, int) -> bool
_>_(double, double) -> bool
_>_(double, int) -> bool
_>_(double, uint) -> bool
_>_(string, string) -> bool
_>_(bytes, bytes) -> bool
_>_(timestamp, timestamp) -> bool
_>_(duration, duration) -> bool
_>=_(bool, bool) -> bool
_>=_(int, int) -> bool
_>=_(int, double) -> bool
_>=_(int, uint) -> bool
_>=_(uint, uint) -> bool
_>=_(uint, double) -> bool
_>=_(uint, int) -> bool
_>=_(double, double) -> bool
_>=_(double, int) -> bool
_>=_(double, uint) -> bool
_>=_(string, string) -> bool
_>=_(bytes, bytes) -> bool
_>=_(timestamp, timestamp) -> bool
_>=_(duration, duration) -> bool
_[_](list(A), int) -> A
_[_](map(A, B), A) -> B
@in(A, list(A)) -> bool
@in(A, map(A, B)) -> bool
size(bytes) -> int
.size(bytes) -> int
size(list(A)) -> int
.size(list(A)) -> int
size(map(A, B)) -> int
.size(map(A, B)) -> int
size(string) -> int
.size(string) -> int
type(A) -> type(A)
bool(bool) -> bool
bool(string) -> bool
bytes(bytes) -> bytes
bytes(string) -> bytes
double(double) -> double
double(int) -> double
double(string) -> double
double(uint) -> double
duration(duration) -> duration
duration(string) -> duration
dyn(A) -> dyn
int(int) -> int
int(double) -> int
int(duration) -> int
int(string) -> int
int(timestamp) -> int
int(uint) -> int
string(string) -> string
string(bool) -> string
string(bytes) -> string
string(double) -> string
string(duration) -> string
string(int) -> string
string(timestamp) -> string
string(uint) -> string
timestamp(timestamp) -> timestamp
timestamp(int) -> timestamp
timestamp(string) -> timestamp
uint(uint) -> uint
uint(double) -> uint
uint(int) -> uint
uint(string) -> uint
.contains(string, string) -> bool
.endsWith(string, string) -> bool
.startsWith(string, string) -> bool
matches(string, string) -> bool
.matches(string, string) -> bool
.getFullYear(timestamp) -> int
.getFullYear(timestamp, string) -> int
.getMonth(timestamp) -> int
.getMonth(timestamp, string) -> int
.getDayOfYear(timestamp) -> int
.getDayOfYear(timestamp, string) -> int
.getDayOfMonth(timestamp) -> int
.getDayOfMonth(timestamp, string) -> int
.getDate(timestamp) -> int
.getDate(timestamp, string) -> int
.getDayOfWeek(timestamp) -> int
.getDayOfWeek(timestamp, string) -> int
.getHours(timestamp) -> int
.getHours(timestamp, string) -> int
.getHours(duration) -> int
.getMinutes(timestamp) -> int
.getMinutes(timestamp, string) -> int
.getMinutes(duration) -> int
.getSeconds(timestamp) -> int
.getSeconds(timestamp, string) -> int
.getSeconds(duration) -> int
.getMilliseconds(timestamp) -> int
.getMilliseconds(timestamp, string) -> int
.getMilliseconds(duration) -> int
";

/// `kubernetes.urls`
pub(crate) const URLS: &str = "
url(string) -> kubernetes.URL
.getScheme(kubernetes.URL) -> string
.getHost(kubernetes.URL) -> string
.getHostname(kubernetes.URL) -> string
.getPort(kubernetes.URL) -> string
.getEscapedPath(kubernetes.URL) -> string
.getQuery(kubernetes.URL) -> map(string, list(string))
isURL(string) -> bool
";

/// `kubernetes.regex`
pub(crate) const REGEX: &str = "
.find(string, string) -> string
.findAll(string, string) -> list(string)
.findAll(string, string, int) -> list(string)
";

/// `kubernetes.lists`
pub(crate) const LISTS: &str = "
.isSorted(list(int)) -> bool
.isSorted(list(uint)) -> bool
.isSorted(list(double)) -> bool
.isSorted(list(bool)) -> bool
.isSorted(list(duration)) -> bool
.isSorted(list(timestamp)) -> bool
.isSorted(list(string)) -> bool
.isSorted(list(bytes)) -> bool
.sum(list(int)) -> int
.sum(list(uint)) -> uint
.sum(list(double)) -> double
.sum(list(duration)) -> duration
.max(list(int)) -> int
.max(list(uint)) -> uint
.max(list(double)) -> double
.max(list(bool)) -> bool
.max(list(duration)) -> duration
.max(list(timestamp)) -> timestamp
.max(list(string)) -> string
.max(list(bytes)) -> bytes
.min(list(int)) -> int
.min(list(uint)) -> uint
.min(list(double)) -> double
.min(list(bool)) -> bool
.min(list(duration)) -> duration
.min(list(timestamp)) -> timestamp
.min(list(string)) -> string
.min(list(bytes)) -> bytes
.indexOf(list(A), A) -> int
.lastIndexOf(list(A), A) -> int
";

/// `kubernetes.authz` and its selectors.
pub(crate) const AUTHORIZATION: &str = "
.path(kubernetes.authorization.Authorizer, string) -> kubernetes.authorization.PathCheck
.group(kubernetes.authorization.Authorizer, string) -> kubernetes.authorization.GroupCheck
.serviceAccount(kubernetes.authorization.Authorizer, string, string) -> kubernetes.authorization.Authorizer
.resource(kubernetes.authorization.GroupCheck, string) -> kubernetes.authorization.ResourceCheck
.subresource(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.ResourceCheck
.namespace(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.ResourceCheck
.name(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.ResourceCheck
.check(kubernetes.authorization.PathCheck, string) -> kubernetes.authorization.Decision
.check(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.Decision
.errored(kubernetes.authorization.Decision) -> bool
.error(kubernetes.authorization.Decision) -> string
.allowed(kubernetes.authorization.Decision) -> bool
.reason(kubernetes.authorization.Decision) -> string
.fieldSelector(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.ResourceCheck
.labelSelector(kubernetes.authorization.ResourceCheck, string) -> kubernetes.authorization.ResourceCheck
";

/// Optional types.
pub(crate) const OPTIONALS: &str = "
optional.of(V) -> optional(V)
optional.ofNonZeroValue(V) -> optional(V)
optional.none() -> optional(V)
.value(optional(V)) -> V
.hasValue(optional(V)) -> bool
.or(optional(V), optional(V)) -> optional(V)
.orValue(optional(V), V) -> V
_?._(dyn, string) -> optional(V)
_[?_](list(V), int) -> optional(V)
_[?_](optional(list(V)), int) -> optional(V)
_[?_](map(K, V), K) -> optional(V)
_[?_](optional(map(K, V)), K) -> optional(V)
_[_](optional(list(V)), int) -> optional(V)
_[_](optional(map(K, V)), K) -> optional(V)
.last(list(V)) -> optional(V)
.first(list(V)) -> optional(V)
optional.unwrap(list(optional(V))) -> list(V)
.unwrapOpt(list(optional(V))) -> list(V)
";

/// `kubernetes.quantity`
pub(crate) const QUANTITY: &str = "
quantity(string) -> kubernetes.Quantity
isQuantity(string) -> bool
.sign(kubernetes.Quantity) -> int
.isGreaterThan(kubernetes.Quantity, kubernetes.Quantity) -> bool
.isLessThan(kubernetes.Quantity, kubernetes.Quantity) -> bool
.compareTo(kubernetes.Quantity, kubernetes.Quantity) -> int
.asApproximateFloat(kubernetes.Quantity) -> double
.asInteger(kubernetes.Quantity) -> int
.isInteger(kubernetes.Quantity) -> bool
.add(kubernetes.Quantity, kubernetes.Quantity) -> kubernetes.Quantity
.add(kubernetes.Quantity, int) -> kubernetes.Quantity
.sub(kubernetes.Quantity, kubernetes.Quantity) -> kubernetes.Quantity
.sub(kubernetes.Quantity, int) -> kubernetes.Quantity
";

/// cel-go's strings, version 2.
pub(crate) const STRINGS: &str = "
.charAt(string, int) -> string
.indexOf(string, string) -> int
.indexOf(string, string, int) -> int
.lastIndexOf(string, string) -> int
.lastIndexOf(string, string, int) -> int
.lowerAscii(string) -> string
.replace(string, string, string) -> string
.replace(string, string, string, int) -> string
.split(string, string) -> list(string)
.split(string, string, int) -> list(string)
.substring(string, int) -> string
.substring(string, int, int) -> string
.trim(string) -> string
.upperAscii(string) -> string
.format(string, list(dyn)) -> string
strings.quote(string) -> string
.join(list(string)) -> string
.join(list(string), string) -> string
";

/// cel-go's sets.
pub(crate) const SETS: &str = "
sets.contains(list(T), list(T)) -> bool
sets.equivalent(list(T), list(T)) -> bool
sets.intersects(list(T), list(T)) -> bool
";

/// `kubernetes.net.ip`
pub(crate) const IP: &str = "
ip(string) -> net.IP
.family(net.IP) -> int
ip.isCanonical(string) -> bool
.isUnspecified(net.IP) -> bool
.isLoopback(net.IP) -> bool
.isLinkLocalMulticast(net.IP) -> bool
.isLinkLocalUnicast(net.IP) -> bool
.isGlobalUnicast(net.IP) -> bool
isIP(string) -> bool
string(net.IP) -> string
";

/// `kubernetes.net.cidr`
pub(crate) const CIDR: &str = "
cidr(string) -> net.CIDR
.containsIP(net.CIDR, string) -> bool
.containsIP(net.CIDR, net.IP) -> bool
.containsCIDR(net.CIDR, string) -> bool
.containsCIDR(net.CIDR, net.CIDR) -> bool
.ip(net.CIDR) -> net.IP
.prefixLength(net.CIDR) -> int
.masked(net.CIDR) -> net.CIDR
isCIDR(string) -> bool
string(net.CIDR) -> string
";

/// `kubernetes.format`
pub(crate) const FORMAT: &str = "
format.dns1123Label() -> kubernetes.NamedFormat
format.dns1123Subdomain() -> kubernetes.NamedFormat
format.dns1035Label() -> kubernetes.NamedFormat
format.qualifiedName() -> kubernetes.NamedFormat
format.dns1123LabelPrefix() -> kubernetes.NamedFormat
format.dns1123SubdomainPrefix() -> kubernetes.NamedFormat
format.dns1035LabelPrefix() -> kubernetes.NamedFormat
format.labelValue() -> kubernetes.NamedFormat
format.uri() -> kubernetes.NamedFormat
format.uuid() -> kubernetes.NamedFormat
format.byte() -> kubernetes.NamedFormat
format.date() -> kubernetes.NamedFormat
format.datetime() -> kubernetes.NamedFormat
.validate(kubernetes.NamedFormat, string) -> optional(list(string))
format.named(string) -> optional(kubernetes.NamedFormat)
";

/// What folds with two variables expand to.
pub(crate) const TWO_VARIABLES: &str = "
cel.@mapInsert(map(K, V), K, V) -> map(K, V)
cel.@mapInsert(map(K, V), map(K, V)) -> map(K, V)
";

/// `kubernetes.Semver`, version 1.
pub(crate) const SEMVER: &str = "
semver(string) -> kubernetes.Semver
isSemver(string) -> bool
.isGreaterThan(kubernetes.Semver, kubernetes.Semver) -> bool
.isLessThan(kubernetes.Semver, kubernetes.Semver) -> bool
.compareTo(kubernetes.Semver, kubernetes.Semver) -> int
.major(kubernetes.Semver) -> int
.minor(kubernetes.Semver) -> int
.patch(kubernetes.Semver) -> int
semver(string, bool) -> kubernetes.Semver
isSemver(string, bool) -> bool
";

/// cel-go's lists, version 3.
pub(crate) const MORE_LISTS: &str = "
.slice(list(T), int, int) -> list(T)
.flatten(list(list(T))) -> list(T)
.flatten(list(dyn), int) -> list(dyn)
.sort(list(int)) -> list(int)
.sort(list(uint)) -> list(uint)
.sort(list(double)) -> list(double)
.sort(list(bool)) -> list(bool)
.sort(list(duration)) -> list(duration)
.sort(list(timestamp)) -> list(timestamp)
.sort(list(string)) -> list(string)
.sort(list(bytes)) -> list(bytes)
.@sortByAssociatedKeys(list(T), list(int)) -> list(T)
.@sortByAssociatedKeys(list(T), list(uint)) -> list(T)
.@sortByAssociatedKeys(list(T), list(double)) -> list(T)
.@sortByAssociatedKeys(list(T), list(bool)) -> list(T)
.@sortByAssociatedKeys(list(T), list(duration)) -> list(T)
.@sortByAssociatedKeys(list(T), list(timestamp)) -> list(T)
.@sortByAssociatedKeys(list(T), list(string)) -> list(T)
.@sortByAssociatedKeys(list(T), list(bytes)) -> list(T)
lists.range(int) -> list(int)
.reverse(list(T)) -> list(T)
.distinct(list(T)) -> list(T)
";

/// `kubernetes.jsonpatch`, only where patches are made.
pub(crate) const JSON_PATCH: &str = "
jsonpatch.escapeKey(string) -> string
";

/// What every environment has.
pub(crate) const BASE: [&str; 15] = [
    STANDARD,
    URLS,
    REGEX,
    LISTS,
    AUTHORIZATION,
    OPTIONALS,
    QUANTITY,
    STRINGS,
    SETS,
    IP,
    CIDR,
    FORMAT,
    TWO_VARIABLES,
    SEMVER,
    MORE_LISTS,
];
