package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sampan-dev/sampan/node/image"
)

// sbomType is the predicate of a list of packages in SPDX's form, as BuildKit's scanners
// have it (in-toto attestation framework, "SPDX").
const sbomType = "https://spdx.dev/Document"

// sbomScope is said in every list: what is not looked for is not there to be missed.
const sbomScope = "Packages of dpkg's and apk's databases, and the modules of Go programs. " +
	"Packages of other languages, and files that no package brought, are not looked for."

// rpmScope is said where there is a database that is not read.
const rpmScope = " The image has a database of RPM packages, which is not read: they are missing here."

// noAssertion is SPDX's word for what nobody has looked at.
const noAssertion = "NOASSERTION"

// spdx is a list of packages: SPDX 2.3, as JSON.
type spdx struct {
	Version       string             `json:"spdxVersion"`
	DataLicense   string             `json:"dataLicense"`
	ID            string             `json:"SPDXID"`
	Name          string             `json:"name"`
	Namespace     string             `json:"documentNamespace"`
	Comment       string             `json:"comment"`
	Creation      spdxCreation       `json:"creationInfo"`
	Packages      []spdxPackage      `json:"packages"`
	Relationships []spdxRelationship `json:"relationships"`
}

type spdxCreation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID               string          `json:"SPDXID"`
	Name             string          `json:"name"`
	Version          string          `json:"versionInfo,omitempty"`
	Supplier         string          `json:"supplier,omitempty"`
	Download         string          `json:"downloadLocation"`
	Analyzed         bool            `json:"filesAnalyzed"`
	SourceInfo       string          `json:"sourceInfo,omitempty"`
	LicenseConcluded string          `json:"licenseConcluded"`
	LicenseDeclared  string          `json:"licenseDeclared"`
	LicenseComments  string          `json:"licenseComments,omitempty"`
	Copyright        string          `json:"copyrightText"`
	Purpose          string          `json:"primaryPackagePurpose,omitempty"`
	Refs             []spdxReference `json:"externalRefs,omitempty"`
}

type spdxReference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type spdxRelationship struct {
	Element string `json:"spdxElementId"`
	Related string `json:"relatedSpdxElement"`
	Type    string `json:"relationshipType"`
}

// sbom lists the packages in the files of an image, which is called name.
func (b *builder) sbom(ctx context.Context, img image.Image, name string) (doc spdx, err error) {
	v, err := b.view(ctx, layersOf(img))
	if err != nil {
		return spdx{}, err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	var found inventory
	if v.dir != "" {
		if found, err = takeInventory(ctx, v.Root); err != nil {
			return spdx{}, err
		}
	}
	if found.rpm {
		b.opts.Warn(Warning{Text: "the list of packages lacks those of the image's RPM database, which can't be read"})
	}
	created := img.Created
	if created.IsZero() {
		created = time.Unix(0, 0)
	}
	return found.document(name, img, created), nil
}

// document writes an inventory as SPDX has it. Equal images have equal documents.
func (v inventory) document(name string, img image.Image, created time.Time) spdx {
	doc := spdx{
		Version: "SPDX-2.3", DataLicense: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name,
		Namespace: "https://sampan.dev/spdx/" + strings.TrimPrefix(img.ID, "sha256:"), Comment: sbomScope,
		Creation: spdxCreation{Created: created.UTC().Format("2006-01-02T15:04:05Z"), Creators: []string{"Tool: sampan"}},
	}
	if v.rpm {
		doc.Comment += rpmScope
	}
	const root = "SPDXRef-image"
	doc.Packages = []spdxPackage{{
		ID: root, Name: name, Version: img.ID, Download: noAssertion, LicenseConcluded: noAssertion, LicenseDeclared: noAssertion,
		Copyright: noAssertion, Purpose: "CONTAINER",
	}}
	doc.Relationships = []spdxRelationship{{doc.ID, root, "DESCRIBES"}}
	for _, p := range v.packages() {
		one := p.spdx()
		doc.Packages = append(doc.Packages, one)
		doc.Relationships = append(doc.Relationships, spdxRelationship{root, one.ID, "CONTAINS"})
	}
	return doc
}

// part is a package that is in an image.
type part struct {
	name, version string
	// purl is its name in the world (github.com/package-url/purl-spec).
	purl string
	// where are the files that tell of it.
	where []string
	// supplier and license are the package's own words.
	supplier, license string
}

// packages are all that were found, each once, in order.
func (v inventory) packages() []part {
	byName := map[string]part{}
	for _, p := range v.parts {
		if known, ok := byName[p.purl]; ok {
			p.where = append(known.where, p.where...)
		}
		byName[p.purl] = p
	}
	var all []part
	for _, p := range byName {
		slices.Sort(p.where)
		p.where = slices.Compact(p.where)
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b part) int { return strings.Compare(a.purl, b.purl) })
	return all
}

// maxWhere bounds the files that are named of one package.
const maxWhere = 16

func (p part) spdx() spdxPackage {
	sum := sha256.Sum256([]byte(p.purl))
	where := p.where[:min(len(p.where), maxWhere)]
	one := spdxPackage{
		ID: "SPDXRef-Package-" + hex.EncodeToString(sum[:8]), Name: p.name, Version: p.version, Download: noAssertion,
		SourceInfo: "found in " + strings.Join(where, ", "), LicenseConcluded: noAssertion, LicenseDeclared: noAssertion,
		Copyright: noAssertion, LicenseComments: p.license,
		Refs: []spdxReference{{"PACKAGE-MANAGER", "purl", p.purl}},
	}
	if p.supplier != "" {
		one.Supplier = "Person: " + p.supplier
	}
	return one
}

// purl is a package's URL: kind and namespace ("deb/debian"), name and version, and what
// else it is known by, "" values left out.
func purl(kind, name, version string, qualifiers ...[2]string) string {
	text := "pkg:" + kind + "/" + name
	if version != "" {
		text += "@" + percent(version)
	}
	sep := "?"
	for _, q := range qualifiers { // in alphabetical order, as the specification wants it
		if q[1] != "" {
			text += sep + q[0] + "=" + percent(q[1])
			sep = "&"
		}
	}
	return text
}

// percent escapes what a part of a package's URL may not have.
func percent(text string) string {
	escaped := strings.ReplaceAll(url.QueryEscape(text), "+", "%20")
	return strings.ReplaceAll(escaped, "%3A", ":")
}

// attests says whether statements about the image are wanted.
func (o *Options) attests() bool { return o.Provenance || o.SBOM }

// named is what statements call the image.
func named(tags []string) string {
	if len(tags) == 0 {
		return "image"
	}
	return fmt.Sprintf("pkg:docker/%s", strings.ReplaceAll(tags[0], ":", "@"))
}
