//! Pictures of sets, and sheets of trainings.

use super::part;
use crate::{
    album::{LeftOut, Picture},
    gather::{SheetFile, Sheets, Tables},
    text::{count, counted},
};
use maud::{Markup, html};

/// Pictures that are smaller than this are enlarged, each pixel to a square.
const SMALL: u32 = 64;

pub(super) fn of_a_set(tables: &Tables) -> Markup {
    let Some(pictures) = &tables.pictures else { return html! {} };
    let shown: usize = pictures.groups.iter().map(|group| group.pictures.len()).sum();
    if shown + pictures.left_out.total() == 0 {
        return html! {};
    }
    let by_class = pictures.groups.iter().any(|group| group.name.is_some());
    let content = html! {
        p.note {
            "The first " (counted(shown as u64, "picture")) " of " (count(pictures.total))
            @if by_class { ", class by class" } "." (left_out(pictures.left_out))
        }
        div.classes.one[!by_class] {
            @for group in &pictures.groups {
                figure.class {
                    @if let Some(name) = &group.name { figcaption { (name) } }
                    div.samples { @for picture in &group.pictures { (sample(picture)) } }
                }
            }
        }
    };
    part("Contact sheet", content)
}

pub(super) fn of_a_training(sheets: &Sheets) -> Markup {
    if sheets.newest.is_none() && sheets.left_out.total() == 0 {
        return html! {};
    }
    let content = html! {
        @if sheets.left_out.total() > 0 { p.note { (left_out(sheets.left_out)) } }
        @if sheets.strip.len() > 1 {
            div.strip tabindex="0" role="group" aria-label="sheets by step" {
                @for (step, picture) in &sheets.strip {
                    figure { (plain(picture)) figcaption { "step " (count(*step)) } }
                }
            }
        }
        @if let Some((step, picture)) = &sheets.newest {
            figure.sheet { (plain(picture)) figcaption { "The newest sheet, of step " (count(*step)) } }
        }
    };
    part("Sheets", content)
}

pub(super) fn of_a_file(sheet: &SheetFile) -> Markup {
    let content = html! {
        @if sheet.left_out.total() > 0 { p.note { (left_out(sheet.left_out)) } }
        @if let Some(picture) = &sheet.picture { figure.sheet { (plain(picture)) } }
    };
    part("Sheet", content)
}

/// A picture of a set, as large as it is or enlarged.
pub(super) fn sample(picture: &Picture) -> Markup {
    let class = if picture.width.max(picture.height) < SMALL { "small" } else { "" };
    html! {
        img class=[(!class.is_empty()).then_some(class)] src=(picture.address) width=(picture.width) height=(picture.height)
            alt=(picture.told) title=(picture.told);
    }
}

fn plain(picture: &Picture) -> Markup {
    html! { img src=(picture.address) width=(picture.width) height=(picture.height) alt=(picture.told); }
}

pub(super) fn left_out(left_out: LeftOut) -> Markup {
    let picture = |number: usize| counted(number as u64, "picture");
    html! {
        @if left_out.page_is_full > 0 { " " (picture(left_out.page_is_full)) " had no room: the page is full." }
        @if left_out.too_large > 0 { " " (picture(left_out.too_large)) " had too many bytes or pixels to be read for a page." }
    }
}
