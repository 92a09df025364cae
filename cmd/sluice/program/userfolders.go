package program

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"sluice/cmd/sluice/program/config"
	"sluice/mailstore"
)

// foldersVersion is the version of what user folders --json and user metadata list --json print.
const foldersVersion = 1

// withMail opens the mail of the data folder for a command about one account.
func (p *program) withMail(a account, f func(box keptMail, settings *config.Config, name string) error) error {
	settings, err := p.settings()
	if err != nil {
		return err
	}
	name, err := a.normal()
	if err != nil {
		return err
	}
	if err := hasFolder(settings.Data); err != nil {
		return err
	}
	err = p.withBox(settings, "user", func(box keptMail) error { return f(box, settings, name) })
	switch {
	case errors.Is(err, mailstore.ErrNoAccount):
		return fmt.Errorf("%w; sluice user list shows all", err)
	case errors.Is(err, mailstore.ErrNoFolder):
		return fmt.Errorf("%w; sluice user folders %s shows all", err, name)
	}
	return err
}

type userFolders struct {
	account
	JSON bool `help:"Print JSON."`
}

func (c *userFolders) Run(p *program) error {
	return p.withMail(c.account, func(box keptMail, _ *config.Config, name string) error {
		all, err := box.Describe(p.ctx, name)
		if err != nil {
			return err
		}
		if c.JSON {
			type row struct {
				Name       string `json:"name"`
				ID         string `json:"id"`
				Use        string `json:"use,omitempty"`
				Subscribed bool   `json:"subscribed"`
				Mails      int    `json:"mails"`
				Unseen     int    `json:"unseen"`
				Size       int64  `json:"size"`
			}
			rows := []row{}
			for _, d := range all {
				rows = append(rows, row{d.Name, d.ID, d.Use, d.Subscribed, d.Messages, d.Unseen, d.Size})
			}
			return printJSON(p, struct {
				Version int    `json:"version"`
				Account string `json:"account"`
				Folders []row  `json:"folders"`
			}{foldersVersion, name, rows})
		}
		t := text{w: p.stdout}
		for _, d := range all {
			t.line(0, "%s  %7d mails  %10d octets  %-8s  %s", d.ID, d.Messages, d.Size, d.Use, d.Name)
		}
		return t.err
	})
}

type userMetadata struct {
	List   userMetadataList   `cmd:"" help:"List the annotations of an account's folders, and of the server as it sees it."`
	Set    userMetadataSet    `cmd:"" help:"Set an annotation of a folder, or of the server as the account sees it."`
	Delete userMetadataDelete `cmd:"" help:"Remove an annotation."`
}

type userMetadataList struct {
	account
	JSON bool `help:"Print JSON."`
}

func (c *userMetadataList) Run(p *program) error {
	return p.withMail(c.account, func(box keptMail, settings *config.Config, name string) error {
		type row struct {
			Folder string `json:"folder"` // "": the server
			Name   string `json:"name"`
			Value  string `json:"value"`
			Site   bool   `json:"site,omitempty"` // set for all accounts
		}
		rows := []row{}
		own, err := box.Annotations(p.ctx, name, "")
		if err != nil {
			return err
		}
		for _, x := range own {
			rows = append(rows, row{Name: x.Name, Value: x.Value})
		}
		for _, x := range slices.Sorted(maps.Keys(settings.Annotations)) {
			if _, ok := own.Value(x); !ok {
				rows = append(rows, row{Name: x, Value: settings.Annotations[x], Site: true})
			}
		}
		folders, err := box.Tree(p.ctx, name)
		if err != nil {
			return err
		}
		for _, f := range folders {
			if f.Missing {
				continue
			}
			all, err := box.Annotations(p.ctx, name, f.Name)
			if err != nil && !errors.Is(err, mailstore.ErrNoFolder) { // gone meanwhile
				return err
			}
			for _, x := range all {
				rows = append(rows, row{Folder: f.Name, Name: x.Name, Value: x.Value})
			}
		}
		if c.JSON {
			return printJSON(p, struct {
				Version     int    `json:"version"`
				Account     string `json:"account"`
				Annotations []row  `json:"annotations"`
			}{foldersVersion, name, rows})
		}
		t := text{w: p.stdout}
		for i, x := range rows {
			if i == 0 || x.Folder != rows[i-1].Folder {
				t.line(0, "%s", orServer(x.Folder))
			}
			all := ""
			if x.Site {
				all = "  (for all accounts)"
			}
			t.line(1, "%s  %s%s", x.Name, x.Value, all)
		}
		return t.err
	})
}

func orServer(folder string) string {
	if folder == "" {
		return "the server"
	}
	return folder
}

// annotation is how commands about one annotation take its name.
type annotation struct {
	Annotation string `arg:"" placeholder:"NAME" help:"The annotation, such as /private/comment (RFC 5464)."`
	Folder     string `help:"The folder it is about; without, it is about the server."`
}

type userMetadataSet struct {
	account
	annotation
	Value string `arg:"" help:"Its text."`
}

func (c *userMetadataSet) Run(p *program) error {
	return p.withMail(c.account, func(box keptMail, _ *config.Config, name string) error {
		return box.Annotate(p.ctx, name, c.Folder, []mailstore.Annotation{{Name: c.Annotation, Value: c.Value}}, nil)
	})
}

type userMetadataDelete struct {
	account
	annotation
}

func (c *userMetadataDelete) Run(p *program) error {
	return p.withMail(c.account, func(box keptMail, _ *config.Config, name string) error {
		all, err := box.Annotations(p.ctx, name, c.Folder)
		if err != nil {
			return err
		}
		if _, ok := all.Value(c.Annotation); !ok {
			return fmt.Errorf("%s has no annotation %q; sluice user metadata list %s shows all", orServer(c.Folder), c.Annotation, name)
		}
		return box.Annotate(p.ctx, name, c.Folder, nil, []string{c.Annotation})
	})
}
