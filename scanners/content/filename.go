package content

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"sluice/pipeline/mime"
)

// longestName is how many characters of a name are kept.
const longestName = 255

// dangerous returns the extensions that are dangerous unless the configuration says otherwise: what Windows, and what
// comes with it, runs or mounts when it is opened.
func dangerous() []string {
	return strings.Fields(`ace ade adp apk app appinstaller appref-ms appx appxbundle arj asp aspx bas bat cab chm cmd com cpl
		dll dmg exe fxp gadget hlp hta img inf ins iso isp jar jnlp js jse ksh lib lnk mad maf mam maq mar mas mat mau mav maw
		mda mdb mde mdt mdw mdz msc msh msh1 msh2 mshxml msi msix msixbundle msp mst nsh one ops osd pcd pif plg prf prg ps1
		ps1xml ps2 ps2xml psc1 psc2 pst reg scf scr sct settingcontent-ms shb shs slk sys theme tmp url vb vbe vbp vbs vhd vhdx
		vsmacros vsw vxd wim ws wsc wsf wsh xbap xll xnk`)
}

// shownExtensions are of what people open without a thought.
var shownExtensions = map[string]bool{
	"pdf": true, "doc": true, "docx": true, "xls": true, "xlsx": true, "ppt": true, "pptx": true, "odt": true, "ods": true, "odp": true,
	"rtf": true, "txt": true, "csv": true, "xml": true, "jpg": true, "jpeg": true, "png": true, "gif": true, "bmp": true, "tif": true,
	"tiff": true, "webp": true, "svg": true, "mp3": true, "mp4": true, "avi": true, "mov": true, "wav": true, "htm": true, "html": true,
	"eml": true, "msg": true, "ics": true, "zip": true, "rar": true, "7z": true,
}

// pageExtensions open in a browser: dangerous behind another extension.
var pageExtensions = map[string]bool{"htm": true, "html": true, "shtml": true, "xhtml": true, "mht": true, "mhtml": true, "svg": true}

// A fileName is what a name says.
type fileName struct {
	ext       string
	dangerous bool
	double    bool
	bidi      bool
}

// readName reads the name of a file as Windows would open it: trailing dots and spaces do not count, and what turns the
// direction of writing is not there.
func readName(name string, danger map[string]bool) (f fileName) {
	if strings.IndexFunc(name, isBidi) >= 0 {
		f.bidi = true
		name = strings.Map(func(r rune) rune {
			if isBidi(r) {
				return -1
			}
			return r
		}, name)
	}
	base, ext := mime.CutExtension(name)
	f.ext = ext
	f.dangerous = ext != "" && danger[ext]
	if f.dangerous || pageExtensions[ext] {
		_, inner := mime.CutExtension(base)
		f.double = inner != ext && shownExtensions[inner] && (f.dangerous || !pageExtensions[inner])
	}
	return f
}

// cleanExtension returns an extension as it is compared.
func cleanExtension(s string) (string, bool) {
	const longest = 24
	s = strings.ToLower(strings.TrimPrefix(strings.TrimSpace(s), "."))
	if s == "" || len(s) > longest || strings.ContainsFunc(s, func(r rune) bool { return r == '.' || unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return "", false
	}
	return s, true
}

func isBidi(r rune) bool {
	return r >= utf8.RuneSelf && unicode.Is(unicode.Bidi_Control, r)
}
