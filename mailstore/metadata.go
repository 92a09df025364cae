package mailstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Errors about annotations that callers branch on.
var (
	ErrAnnotation         = errors.New("not a usable annotation") // its name, or its value
	ErrTooManyAnnotations = errors.New("too many annotations")    // RFC 5464, 4.3: METADATA TOOMANY
	ErrAnnotationSize     = errors.New("annotations too large")   // RFC 5464, 4.3: METADATA MAXSIZE
)

// Metadata is what a store knows of folders besides their mail: identities (RFC 8474), and annotations (RFC 5464) of
// folders and of the server as an account sees it. Its methods may be called by any number of goroutines.
type Metadata interface {
	// FolderID returns the identity of a folder: 1 to 255 of [0-9A-Za-z_-]. A folder keeps it whatever its name is, and it
	// is never another's, not even that of one made later under the same name. It is made when first asked for, and would
	// survive a power cut. The inbox is there for every account. ErrNoFolder.
	FolderID(ctx context.Context, account, folder string) (id string, err error)
	// FolderByID returns the name of the folder with an identity that FolderID has returned; ErrNoFolder.
	FolderByID(ctx context.Context, account, id string) (folder string, err error)
	// Describe returns all folders there are, the inbox first, then by name. Mail that nobody has looked at stays new.
	Describe(ctx context.Context, account string) ([]FolderDescription, error)
	// Annotations returns those of a folder, by name, and of the server for "". They are the folder's, whatever its name is,
	// and go with it. ErrNoFolder.
	Annotations(ctx context.Context, account, folder string) (Annotations, error)
	// Annotate sets annotations and removes others, all or none, and returns once they would survive a power cut. To remove
	// one that is not there is no error. [UseAnnotation] gives a folder a special use; ErrUse. ErrAnnotation, ErrTooManyAnnotations, ErrAnnotationSize, ErrNoFolder.
	Annotate(ctx context.Context, account, folder string, set []Annotation, remove []string) error
}

// A FolderDescription is a folder with its identity and what is in it.
type FolderDescription struct {
	FolderInfo
	ID       string
	Messages int
	Unseen   int
	Size     int64 // octets with CRLF line ends
}

// An Annotation is a text under a name, such as "/private/comment". The text may be empty.
type Annotation struct {
	Name  string `json:"name"` // as AnnotationName returns it
	Value string `json:"value"`
}

// Annotations are those of one folder, by name.
type Annotations []Annotation

// Value returns the annotation of a name.
func (a Annotations) Value(name string) (value string, ok bool) {
	i := slices.IndexFunc(a, func(x Annotation) bool { return strings.EqualFold(x.Name, name) })
	if i < 0 {
		return "", false
	}
	return a[i].Value, true
}

// annotationName is how long the name of an annotation may be, in octets.
const annotationName = 255

// AnnotationName returns the name of an annotation as names are compared, in lower case (RFC 5464, 3.2), or ErrAnnotation
// for what cannot be one.
func AnnotationName(name string) (string, error) {
	bad := func(why string) (string, error) {
		return "", fmt.Errorf("%w: the name %.260q %s", ErrAnnotation, name, why)
	}
	lower := strings.ToLower(name)
	scope, rest, _ := strings.Cut(strings.TrimPrefix(lower, "/"), "/")
	switch {
	case len(name) > annotationName:
		return bad(fmt.Sprintf("has more than %d octets", annotationName))
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }):
		return bad("has a character that is not printable ASCII")
	case strings.ContainsAny(name, "*%"):
		return bad("has a * or %")
	case lower == "" || lower[0] != '/' || scope != "private" && scope != "shared":
		return bad("begins neither with /private/ nor with /shared/")
	case rest == "" || strings.Contains(lower, "//") || strings.HasSuffix(lower, "/"):
		return bad("has an empty part")
	}
	return lower, nil
}

// AnnotationValue returns nil for a text that an annotation can have, else ErrAnnotation: UTF-8 without NUL.
func AnnotationValue(value string) error {
	if !utf8.ValidString(value) || strings.Contains(value, "\x00") {
		return fmt.Errorf("%w: its value is not UTF-8 without NUL", ErrAnnotation)
	}
	return nil
}
