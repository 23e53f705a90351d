/*
 * Draws behind the bars of the system and keeps what is read and tapped clear of them, of notches and of the keyboard.
 */
package io.pocketbert.app

import android.graphics.Insets
import android.os.Build
import android.view.View
import android.view.Window
import android.view.WindowInsets

/** What Android 15 does by itself. */
@Suppress("DEPRECATION") // what came after these calls is not on the phones that need them
fun Window.drawEdgeToEdge() {
    if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
        setDecorFitsSystemWindows(false)
    } else {
        val behind = View.SYSTEM_UI_FLAG_LAYOUT_FULLSCREEN or View.SYSTEM_UI_FLAG_LAYOUT_HIDE_NAVIGATION
        decorView.systemUiVisibility = decorView.systemUiVisibility or behind or View.SYSTEM_UI_FLAG_LAYOUT_STABLE
    }
}

/** Left, top, right and bottom in pixels that bars, notches and the keyboard cover. */
@Suppress("DEPRECATION") // as above
fun WindowInsets.covered(): Edges = if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.R) {
    val kinds = WindowInsets.Type.systemBars() or WindowInsets.Type.displayCutout() or WindowInsets.Type.ime()
    val insets: Insets = getInsets(kinds)
    Edges(insets.left, insets.top, insets.right, insets.bottom)
} else {
    Edges(systemWindowInsetLeft, systemWindowInsetTop, systemWindowInsetRight, systemWindowInsetBottom)
}

class Edges(val left: Int, val top: Int, val right: Int, val bottom: Int)

/** Adds to the padding that a view was given; each call (left, top, right, bottom) starts from that again. */
fun View.padder(): (Int, Int, Int, Int) -> Unit {
    val (start, top, end, bottom) = listOf(paddingStart, paddingTop, paddingEnd, paddingBottom)
    val mirrored = resources.configuration.layoutDirection == View.LAYOUT_DIRECTION_RTL // the view itself may not know yet
    return { l, t, r, b -> setPaddingRelative(start + if (mirrored) r else l, top + t, end + if (mirrored) l else r, bottom + b) }
}

/** The bar above reaches behind the status bar, what is below behind the navigation bar, and the sides keep free. */
fun keepClearOfBars(root: View, above: View, list: View, below: View, vararg between: View) {
    val (padAbove, padBelow) = above.padder() to below.padder()
    val padBetween = listOf(list, *between).map { it.padder() }
    root.setOnApplyWindowInsetsListener { _, insets ->
        val edges = insets.covered()
        padAbove(edges.left, edges.top, edges.right, 0)
        padBelow(edges.left, 0, edges.right, edges.bottom)
        padBetween.forEach { it(edges.left, 0, edges.right, 0) }
        insets
    }
}
